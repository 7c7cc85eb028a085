//! Takes the viewer's place on the statistics socket: what every process last said about itself.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_endpoint::link::Link;
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::statistics::Nothing;
use ipc_proto::hello::Role;
use ipc_proto::statistics::{Metric, StatisticsMessage};

use crate::roles::ALL;

/// The processes' last reports.
#[derive(Debug)]
pub(crate) struct Collector {
    listener: Listener,
    peers: Peers,
    links: Vec<Link<Nothing, StatisticsMessage>>,
    reports: BTreeMap<Role, Vec<Metric>>,
}

impl Collector {
    /// Listens on the socket.
    pub(crate) fn new(socket: OwnedFd, peers: Peers) -> Self {
        Self {
            listener: Listener::from_fd(socket),
            peers,
            links: Vec::new(),
            reports: BTreeMap::new(),
        }
    }

    /// What to poll.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let links = self.links.iter().map(AsFd::as_fd);
        links.chain([self.listener.as_fd()]).collect()
    }

    /// Takes what has come.
    pub(crate) fn take(&mut self) {
        while let Ok(Some(link)) = self.listener.accept(Role::Viewer, &ALL, &self.peers) {
            self.links.push(link);
        }
        let reports = &mut self.reports;
        self.links.retain_mut(|link| {
            loop {
                match link.receive() {
                    Ok(Some(received)) => {
                        let StatisticsMessage::Statistics(statistics) = received.message;
                        if let Some(role) = link.peer() {
                            reports.insert(role, statistics.metrics.0);
                        }
                    }
                    Ok(None) => return true,
                    Err(_gone) => return false,
                }
            }
        });
    }

    /// The metrics of that name, with the role that said them.
    pub(crate) fn metrics<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (Role, &'a Metric)> {
        self.reports.iter().flat_map(move |(role, metrics)| {
            metrics
                .iter()
                .filter(move |metric| metric.name.0 == name.as_bytes())
                .map(|metric| (*role, metric))
        })
    }

    /// The sum of the metrics of that name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.metrics(name).map(|(_, metric)| metric.value).sum()
    }
}

/// The value of a metric's label.
pub(crate) fn label(metric: &Metric, name: &str) -> String {
    let found = metric
        .labels
        .0
        .iter()
        .find(|label| label.name.0 == name.as_bytes());
    found
        .map(|label| label.value.text().into_owned())
        .unwrap_or_default()
}
