//! Settings that change while a process runs: the shipper publishes them, every other process hears them at the beat of
//! its statistics. Nobody waits for anybody: who hears nothing keeps what it was told at its start.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use ipc_proto::hello::Role;
use ipc_proto::settings::{MAX_FREQUENCY, Settings, SettingsMessage};
use log::LevelFilter;

use crate::connect::Connector;
use crate::link::{Link, Sent};
use crate::listener::Listener;
use crate::peers::Peers;
use crate::statistics::Nothing;

/// The socket's name.
pub const SOCKET: &str = "settings.sock";
/// Who may listen to them.
const SUBSCRIBERS: [Role; 5] = [
    Role::Sampler,
    Role::Opener,
    Role::Symbolizer,
    Role::DebuginfoUploader,
    Role::Viewer,
];
/// Links at once: each subscriber's, and that of its successor.
const MAX_LINKS: usize = 2 * SUBSCRIBERS.len();

/// Hears settings. The log level takes effect by itself.
#[derive(Debug)]
pub struct Subscriber {
    connector: Connector<Nothing, SettingsMessage>,
    link: Option<Link<Nothing, SettingsMessage>>,
    frequency: Option<u32>,
}

impl Subscriber {
    /// Will connect when first polled.
    #[must_use]
    pub fn new(directory: &Path, own: Role, peers: &Peers) -> Self {
        Self {
            connector: Connector::new(directory, SOCKET, own, Role::Shipper, peers),
            link: None,
            frequency: None,
        }
    }

    /// Hears what has come.
    pub fn poll(&mut self, now: u64) {
        if self.link.is_none() {
            self.link = self.connector.poll(now);
        }
        while let Some(link) = &mut self.link {
            match link.receive() {
                Ok(Some(received)) => {
                    let SettingsMessage::Settings(settings) = received.message;
                    self.take(&settings);
                }
                Ok(None) => return,
                Err(error) => {
                    log::debug!("no settings: {error}");
                    self.link = None;
                }
            }
        }
    }

    fn take(&mut self, settings: &Settings) {
        if (1..=MAX_FREQUENCY).contains(&settings.frequency) {
            self.frequency = Some(settings.frequency);
        }
        if let Some(level) = level(settings.log_level)
            && level != log::max_level()
        {
            log::set_max_level(level);
            log::info!("the log's level is {level} now");
        }
    }

    /// The last sampling rate that was heard of, samples a second and CPU.
    #[must_use]
    pub fn frequency(&self) -> Option<u32> {
        self.frequency
    }
}

fn level(number: u8) -> Option<LevelFilter> {
    match number {
        1 => Some(LevelFilter::Error),
        2 => Some(LevelFilter::Warn),
        3 => Some(LevelFilter::Info),
        4 => Some(LevelFilter::Debug),
        _ => None,
    }
}

/// Tells all subscribers.
#[derive(Debug)]
pub struct Publisher {
    listener: Listener,
    peers: Peers,
    links: Vec<(Link<SettingsMessage, Nothing>, bool)>,
    current: Settings,
}

impl Publisher {
    /// Will tell `current` to whoever connects.
    #[must_use]
    pub fn new(listener: Listener, peers: &Peers, current: Settings) -> Self {
        Self {
            listener,
            peers: peers.clone(),
            links: Vec::new(),
            current,
        }
    }

    /// From now on these hold.
    pub fn publish(&mut self, settings: Settings) {
        if settings != self.current {
            self.current = settings;
            for (_, told) in &mut self.links {
                *told = false;
            }
        }
        self.poll();
    }

    /// Takes new subscribers, tells whoever does not know.
    pub fn poll(&mut self) {
        while self.links.len() < MAX_LINKS {
            match self
                .listener
                .accept(Role::Shipper, &SUBSCRIBERS, &self.peers)
            {
                Ok(Some(link)) => self.links.push((link, false)),
                Ok(None) => break,
                Err(error) => log::info!("a subscriber of settings: {error}"),
            }
        }
        let message = SettingsMessage::Settings(self.current.clone());
        self.links.retain_mut(|(link, told)| {
            // Its hello, then nothing ever.
            if link.receive().is_err() {
                return false;
            }
            if !*told {
                match link.send(&message, &[]) {
                    Ok(Sent::Done) => *told = true,
                    Ok(Sent::WouldBlock) => {}
                    Err(_gone) => return false,
                }
            }
            true
        });
    }

    /// What to poll.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // Who does not close what is refused would wake us for ever.
        let listener = (self.links.len() < MAX_LINKS).then(|| self.listener.as_fd());
        listener
            .into_iter()
            .chain(self.links.iter().map(|(link, _)| link.as_fd()))
    }
}
