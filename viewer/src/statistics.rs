//! The listening end of `statistics.sock`: takes what the other processes say about themselves. Believes nothing but the role
//! that the link has checked; what is in the metrics is data.

use std::os::fd::BorrowedFd;

use ipc_endpoint::link::{Link, LinkError, Violation};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::statistics::Nothing;
use ipc_proto::hello::Role;
use ipc_proto::statistics::{self as wire, StatisticsMessage};
use std::os::fd::AsFd as _;

use crate::metrics::Metric;

/// Links at once: each of the others, and one of each being replaced.
const MAX_LINKS: usize = 12;
/// Messages taken from a link in one go, so that a talkative peer doesn't hold up the page.
const MAX_MESSAGES: usize = 16;
/// Who reports.
const ROLES: [Role; 6] = [
    Role::Sampler,
    Role::Opener,
    Role::Symbolizer,
    Role::DebuginfoUploader,
    Role::Shipper,
    Role::Leadsman,
];

/// A process's report.
#[derive(Debug, PartialEq)]
pub(crate) struct Report {
    /// Whose.
    pub(crate) role: Role,
    /// What it says.
    pub(crate) metrics: Vec<Metric>,
}

/// The reporting processes.
#[derive(Debug)]
pub(crate) struct Reporters {
    listener: Listener,
    peers: Peers,
    links: Vec<Link<Nothing, StatisticsMessage>>,
}

impl Reporters {
    /// Will accept the other processes.
    pub(crate) fn new(listener: Listener, peers: Peers) -> Self {
        Self {
            listener,
            peers,
            links: Vec::new(),
        }
    }

    /// The sockets to wait for.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = (self.links.len() < MAX_LINKS).then(|| self.listener.as_fd());
        listener
            .into_iter()
            .chain(self.links.iter().map(Link::as_fd))
    }

    /// Accepts who wants to report and takes what came; the number of links closed for breaking the protocol comes second.
    pub(crate) fn receive(&mut self) -> (Vec<Report>, u64) {
        let mut violations = 0;
        let mut note = |error: &LinkError| {
            if let LinkError::Violation(_) = error {
                log::warn!("statistics link closed: {error}");
                violations += 1;
            } else {
                log::debug!("statistics link ended: {error}");
            }
        };
        while self.links.len() < MAX_LINKS {
            match self.listener.accept(Role::Viewer, &ROLES, &self.peers) {
                Ok(Some(link)) => self.links.push(link),
                Ok(None) => break,
                Err(error @ LinkError::Io(_)) => {
                    note(&error);
                    break;
                }
                Err(error) => note(&error),
            }
        }
        let mut reports = Vec::new();
        self.links
            .retain_mut(|link| match take(link, &mut reports) {
                Ok(()) => true,
                Err(error) => {
                    note(&error);
                    false
                }
            });
        (reports, violations)
    }
}

fn take(
    link: &mut Link<Nothing, StatisticsMessage>,
    reports: &mut Vec<Report>,
) -> Result<(), LinkError> {
    for _ in 0..MAX_MESSAGES {
        let Some(received) = link.receive()? else {
            return Ok(());
        };
        if !received.fds.is_empty() {
            return Err(Violation::Descriptors(received.fds.len()).into());
        }
        let Some(role) = link.peer() else {
            return Ok(());
        };
        let StatisticsMessage::Statistics(statistics) = received.message;
        reports.push(Report {
            role,
            metrics: statistics.metrics.0.into_iter().map(Metric::from).collect(),
        });
    }
    Ok(())
}

impl From<wire::Metric> for Metric {
    fn from(metric: wire::Metric) -> Self {
        Self {
            name: metric.name.text().into_owned(),
            help: metric.help.text().into_owned(),
            counter: metric.counter,
            labels: metric
                .labels
                .0
                .iter()
                .map(|label| {
                    (
                        label.name.text().into_owned(),
                        label.value.text().into_owned(),
                    )
                })
                .collect(),
            value: metric.value,
            buckets: metric
                .buckets
                .0
                .iter()
                .map(|bucket| (bucket.bound, bucket.count))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_endpoint::connect::Connector;
    use ipc_endpoint::statistics::counter;
    use ipc_proto::codec::List;
    use ipc_proto::statistics::Statistics;

    #[test]
    fn a_report_arrives_under_the_role_of_its_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = Listener::bind(&directory.path().join("statistics.sock")).expect("bound");
        let mut reporters = Reporters::new(listener, Peers::default());
        let mut connector: Connector<StatisticsMessage, Nothing> = Connector::new(
            directory.path(),
            "statistics.sock",
            Role::Shipper,
            Role::Viewer,
            &Peers::default(),
        );
        let mut link = connector.poll(0).expect("a link");
        assert_eq!(reporters.receive(), (vec![], 0), "the hello alone");
        let metrics = List(vec![counter(
            "leadsman_x_total",
            "X.",
            &[("cause", "y")],
            3.0,
        )]);
        let message = StatisticsMessage::Statistics(Statistics {
            metrics,
            last: false,
        });
        link.receive().expect("the viewer's hello");
        link.send(&message, &[]).expect("sent");
        let (reports, violations) = reporters.receive();
        let expected = Metric::counter("leadsman_x_total", "X.", 3).with("cause", "y");
        assert_eq!(
            reports,
            [Report {
                role: Role::Shipper,
                metrics: vec![expected]
            }]
        );
        assert_eq!(violations, 0);
        assert_eq!(reporters.sockets().count(), 2);
        drop(link);
        reporters.receive();
        assert_eq!(reporters.sockets().count(), 1, "the link is gone");
    }

    #[test]
    fn a_viewer_does_not_report_to_a_viewer() {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = Listener::bind(&directory.path().join("statistics.sock")).expect("bound");
        let mut reporters = Reporters::new(listener, Peers::default());
        let mut connector: Connector<StatisticsMessage, Nothing> = Connector::new(
            directory.path(),
            "statistics.sock",
            Role::Viewer,
            Role::Viewer,
            &Peers::default(),
        );
        let _link = connector.poll(0).expect("a link");
        assert_eq!(reporters.receive().1, 1);
    }
}
