//! What goes into responses: the page's files, JSON for it, the text page of `/query`. Text of foreign origin leaves here
//! escaped or as JSON, never as markup.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;

use crate::http::{Response, Status};
use crate::processes::ProcessList;
use crate::profile::{Profile, Summary};
use crate::routes::Asset;
use crate::tree::View;
use crate::windows::WindowId;

/// Lines of the text rendering of a profile.
const MAX_LINES: usize = 400;
/// Reasons for missing names that are passed on.
const MAX_REASONS: usize = 32;

/// A file of the page.
pub(crate) fn asset(asset: Asset) -> Response {
    match asset {
        Asset::Page => Response::html(include_str!("../assets/index.html").as_bytes().to_vec()),
        Asset::Style => Response::asset(
            "text/css; charset=utf-8",
            include_str!("../assets/style.css"),
        ),
        Asset::Script(script) => {
            Response::asset("text/javascript; charset=utf-8", script.content())
        }
        Asset::Icon => Response::asset("image/svg+xml", include_str!("../assets/favicon.svg")),
    }
}

/// A JSON document.
pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => Response::json(body),
        Err(error) => Response::text(Status::ServiceUnavailable, &error.to_string()),
    }
}

/// The windows that an answer was made of.
#[derive(Debug, Default, Serialize)]
pub(crate) struct WindowSpan {
    /// Windows merged.
    count: usize,
    /// Windows left out because they couldn't be read.
    pub(crate) unreadable: usize,
    /// Milliseconds since 1970 UTC at which the first starts.
    start: u64,
    /// Milliseconds since 1970 UTC at which the last ends.
    end: u64,
    /// Nanoseconds sampled, without gaps between windows.
    duration_nanos: u64,
    /// Nanoseconds of CPU time that a sample stands for.
    period_nanos: u64,
    /// Why code has no name and what to do about it, with the number of frames.
    unnamed_because: BTreeMap<Rc<str>, u64>,
}

impl WindowSpan {
    /// Adds a window.
    pub(crate) fn extend(&mut self, profile: &Profile) {
        let start = millis(profile.start);
        let end = millis(profile.start.saturating_add(profile.duration));
        self.start = if self.count == 0 {
            start
        } else {
            self.start.min(start)
        };
        self.end = self.end.max(end);
        self.count += 1;
        self.duration_nanos = self.duration_nanos.saturating_add(nanos(profile.duration));
        self.period_nanos = nanos(profile.period);
        for (reason, frames) in &profile.unnamed_because {
            if self.unnamed_because.len() < MAX_REASONS || self.unnamed_because.contains_key(reason)
            {
                let sum = self.unnamed_because.entry(Rc::clone(reason)).or_default();
                *sum = sum.saturating_add(*frames);
            }
        }
    }

    /// A name for a download of these windows.
    pub(crate) fn file_name(&self) -> String {
        format!(
            "leadsman-{}.pb.gz",
            WindowId::from_start(Duration::from_millis(self.start))
        )
    }
}

/// A line of the list of windows.
#[derive(Debug, Serialize)]
pub(crate) struct WindowRow {
    id: String,
    start: u64,
    bytes: u64,
    /// Nothing when the file can't be read.
    summary: Option<SummaryRow>,
}

#[derive(Debug, Serialize)]
struct SummaryRow {
    duration_nanos: u64,
    period_nanos: u64,
    samples: u64,
    kernel: u64,
    stopped: u64,
    unnamed: u64,
}

impl WindowRow {
    /// The line of a window.
    pub(crate) fn new(id: WindowId, bytes: u64, summary: Option<Summary>) -> Self {
        Self {
            id: id.to_string(),
            start: millis(id.start()),
            bytes,
            summary: summary.map(|summary| SummaryRow {
                duration_nanos: nanos(summary.duration),
                period_nanos: nanos(summary.period),
                samples: summary.samples,
                kernel: summary.kernel,
                stopped: summary.stopped,
                unnamed: summary.unnamed,
            }),
        }
    }
}

/// A call tree with the windows it is of.
pub(crate) fn flamegraph(span: &WindowSpan, tree: &View) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        span: &'a WindowSpan,
        tree: &'a View,
    }
    json(&Answer { span, tree })
}

/// Processes with the windows they are of.
pub(crate) fn processes(span: &WindowSpan, list: &ProcessList) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        span: &'a WindowSpan,
        list: &'a ProcessList,
    }
    json(&Answer { span, list })
}

/// The text rendering of a selected profile, as a page with a link to the profile itself.
pub(crate) fn query_page(selector: &str, span: &WindowSpan, tree: &View) -> Response {
    let mut text = String::new();
    let total = tree.total.max(1);
    for (line, (depth, name, samples, own)) in tree.rows().enumerate() {
        if line >= MAX_LINES {
            text.push_str("  ... more in the profile\n");
            break;
        }
        let percent = samples as f64 * 100.0 / total as f64;
        let indent = usize::try_from(depth).unwrap_or(0).min(200);
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "{samples:>9} {percent:>6.2} % {own:>9}  {:indent$}{name}",
            ""
        );
    }
    let seconds = Duration::from_nanos(span.duration_nanos).as_secs_f64();
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Leadsman: {selector}</title>\n\
         <link rel=\"stylesheet\" href=\"/style.css\">\n<body class=\"query\">\n<h1>{selector}</h1>\n\
         <p>{} samples in {seconds:.1} s. <a href=\"/query?query={query}\">Download the next profile</a> \
         or see <a href=\"/\">the flame graph</a>.</p>\n\
         <pre>  samples  share        own  function\n{text}</pre>\n</body>\n</html>\n",
        tree.total,
        selector = escape(selector),
        query = percent_encode(selector),
        text = escape(&text),
    );
    Response::html(page.into_bytes())
}

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character => escaped.push(character),
        }
    }
    escaped
}

/// Text as a URL parameter's value.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::profile;
    use crate::selector::Selector;
    use crate::tree::TreeBuilder;

    #[test]
    fn hostile_names_are_text_on_the_query_page() {
        let window = profile(&[(
            1,
            "<script>alert(1)</script>",
            "t",
            &["</pre><img src=x onerror=y>", "a&b\"'"],
            3,
        )]);
        let mut tree = TreeBuilder::new();
        tree.add(&window, &Selector::default(), false);
        let mut span = WindowSpan::default();
        span.extend(&window);
        let response = query_page("{comm=\"<b>\"}", &span, &tree.finish());
        let page = String::from_utf8(response.body).expect("text");
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<b>"));
        assert!(page.contains("&lt;script&gt;alert(1)"));
        assert!(page.contains("a&amp;b&quot;&#39;"));
        assert!(page.contains("/query?query=%7Bcomm%3D%22%3Cb%3E%22%7D\""));
        assert!(page.contains("3 samples in 10.0 s"));
    }

    #[test]
    fn a_download_is_named_after_its_first_window() {
        let mut span = WindowSpan::default();
        span.extend(&profile(&[]));
        assert_eq!(span.file_name(), "leadsman-20261124T124500.000Z.pb.gz");
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        for asset_of in [Asset::Page, Asset::Style, Asset::Icon] {
            let content = String::from_utf8(asset(asset_of).body).expect("text");
            for outside in [
                "src=\"http",
                "href=\"http",
                "src=\"//",
                "@import",
                "url(",
                " style=",
                " onclick=",
            ] {
                assert!(
                    !content.contains(outside),
                    "{asset_of:?} contains {outside}"
                );
            }
        }
    }
}
