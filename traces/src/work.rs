//! A piece of work and its span.

use std::fmt::Display;
use std::time::SystemTime;

use opentelemetry::trace::{FutureExt, Link, SpanContext, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};

/// A span that ends with its work: when this is dropped. Work that nobody traces has one that is nothing.
#[derive(Debug)]
pub struct Work(Context);

impl Work {
    /// Begins now, as a part of what is under way on this thread.
    #[must_use]
    pub fn begin(name: &'static str) -> Self {
        Self::start(name, SystemTime::now(), Vec::new(), &Context::current())
    }

    /// Began at `start`, as a part of nothing; `links` are what it is made of.
    #[must_use]
    pub fn root(name: &'static str, start: SystemTime, links: Vec<SpanContext>) -> Self {
        Self::start(name, start, links, &Context::new())
    }

    /// Begins now, as a part of this.
    #[must_use]
    pub fn part(&self, name: &'static str) -> Self {
        self.part_since(name, SystemTime::now())
    }

    /// Began at `start`, as a part of this.
    #[must_use]
    pub fn part_since(&self, name: &'static str, start: SystemTime) -> Self {
        Self::start(name, start, Vec::new(), &self.0)
    }

    fn start(
        name: &'static str,
        start: SystemTime,
        links: Vec<SpanContext>,
        parent: &Context,
    ) -> Self {
        let tracer = global::tracer("leadsman");
        let links = links.into_iter().map(|of| Link::new(of, Vec::new(), 0));
        let builder = tracer.span_builder(name).with_start_time(start);
        let builder = builder.with_links(links.collect());
        let span = builder.start_with_context(&tracer, parent);
        Self(parent.with_span(span))
    }

    /// What others link to, or are parts of.
    #[must_use]
    pub fn span_context(&self) -> SpanContext {
        self.0.span().span_context().clone()
    }

    /// Says more of it.
    pub fn note(&self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        self.0.span().set_attribute(KeyValue::new(key, value));
    }

    /// It failed, for this reason.
    pub fn fail(&self, reason: &impl Display) {
        self.0.span().set_status(Status::error(reason.to_string()));
    }

    /// Does it: what begins meanwhile is a part of it.
    pub async fn of<T>(&self, work: impl Future<Output = T>) -> T {
        work.with_context(self.0.clone()).await
    }

    /// It ended at `end`.
    pub fn end_at(self, end: SystemTime) {
        self.0.span().end_with_timestamp(end);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.span().end();
    }
}
