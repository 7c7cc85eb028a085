//! The shipper's loop between a pretended symbolizer and a directory.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ipc_endpoint::connect::Connector;
use ipc_endpoint::link::Sent;
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::codec::{Bytes, List};
use ipc_proto::hello::Role;
use ipc_proto::ids::{Pid, Tid, WindowId};
use ipc_proto::symbolized::{
    Line, Location, LocationKind, NONE, ShipperMessage, SymbolizedBatch, SymbolizedMessage,
    SymbolizedProcess, SymbolizedSample,
};
use leadsman_shipper::engine::Engine;
use leadsman_shipper::event_loop::EventLoop;
use leadsman_shipper::labels::{Labeller, Settings, Sources};
use leadsman_shipper::store::{LocalStore, Retention};

const DEADLINE: Duration = Duration::from_secs(20);

/// A window of one stack; `padding` bytes of strings that nothing refers to make its message large.
fn batch(window: u64, count: u64, padding: usize) -> SymbolizedBatch {
    let strings = ["", "function", "comm"];
    let strings = strings.into_iter().map(|text| text.as_bytes().to_vec());
    let padding = (0..padding.div_ceil(4096)).map(|_| vec![b'x'; 4096]);
    SymbolizedBatch {
        window: WindowId(window),
        start: (1_795_524_300 + window) * 1_000_000_000,
        duration: 1_000_000_000,
        frequency: 19,
        strings: List(strings.chain(padding).map(Bytes).collect()),
        locations: List(vec![Location {
            kind: LocationKind::Native as u8,
            mapping: NONE,
            address: 0x1000,
            elf_address: 0x1000,
            lines: List(vec![Line {
                function: 1,
                system_name: 1,
                ..Line::default()
            }]),
            reason: 0,
        }]),
        processes: List(vec![SymbolizedProcess {
            pid: Pid(7),
            comm: 2,
            executable: NONE,
            ..SymbolizedProcess::default()
        }]),
        samples: List(vec![SymbolizedSample {
            tid: Tid(8),
            count,
            locations: List(vec![0]),
            ..SymbolizedSample::default()
        }]),
        ..SymbolizedBatch::default()
    }
}

type ShipperLink = ipc_endpoint::link::Link<SymbolizedMessage, ShipperMessage>;

/// Runs a shipper on a thread that ends with the test; returns how to reach it.
fn start(directory: &Path) -> Connector<SymbolizedMessage, ShipperMessage> {
    let peers = Peers::default();
    let listener = Listener::bind(&directory.join("symbolized.sock")).expect("a socket");
    let retention = Retention {
        max_bytes: u64::MAX,
        max_age_millis: u64::MAX,
    };
    let store = LocalStore::open(&directory.join("store"), retention).expect("a store");
    let reporter = Reporter::new(directory, Role::Shipper, &peers);
    let settings = Settings {
        node: "host".to_owned(),
        ..Settings::default()
    };
    let labeller = Labeller::new(settings, Sources::default());
    let termination = Termination::watch().expect("a signal handler");
    let connector = Connector::new(
        directory,
        "symbolized.sock",
        Role::Symbolizer,
        Role::Shipper,
        &peers,
    );
    thread::spawn(move || {
        let engine = Engine::default();
        EventLoop::new(
            listener,
            peers,
            labeller,
            engine,
            store,
            reporter,
            termination,
        )
        .run()
    });
    connector
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

fn connect(connector: &mut Connector<SymbolizedMessage, ShipperMessage>) -> ShipperLink {
    until("a link", || connector.poll(u64::MAX))
}

fn send(link: &mut ShipperLink, batch: SymbolizedBatch) {
    let message = SymbolizedMessage::Batch(batch);
    until("sending", || {
        (link.send(&message, &[]).expect("a sound link") == Sent::Done).then_some(())
    });
}

fn taken(link: &mut ShipperLink) -> (u64, u64) {
    let received = until("an acknowledgement", || {
        link.receive().expect("a sound link")
    });
    let ShipperMessage::Taken(taken) = received.message;
    (taken.window.0, taken.samples)
}

#[test]
fn windows_are_stored_and_acknowledged_also_after_a_bad_symbolizer() {
    let root = tempfile::tempdir().unwrap();
    let mut connector = start(root.path());
    let store = root.path().join("store");
    let mut link = connect(&mut connector);
    // The second one travels in a memfd.
    for (window, padding) in [(0, 0), (1, 300_000)] {
        send(&mut link, batch(window, 5, padding));
        assert_eq!(taken(&mut link), (window, 5));
        let name = format!("leadsman-20261124T12450{window}.000Z.pb.gz");
        let profile = pprof::read(&std::fs::read(store.join(name)).unwrap()).unwrap();
        assert_eq!(profile.sample.len(), 1);
        assert_eq!(profile.sample[0].value, [5]);
        assert_eq!(profile.period, 52_631_578);
    }

    let mut bad = batch(2, 5, 0);
    bad.samples.0[0].locations.0[0] = 9;
    send(&mut link, bad);
    until("the link's end", || link.receive().err());
    let mut link = connect(&mut connector);
    send(&mut link, batch(3, 6, 0));
    assert_eq!(taken(&mut link), (3, 6));
    assert_eq!(std::fs::read_dir(&store).unwrap().count(), 3);
}

#[test]
fn a_window_sent_twice_is_stored_once() {
    let root = tempfile::tempdir().unwrap();
    let mut connector = start(root.path());
    for _ in 0..2 {
        let mut link = connect(&mut connector);
        send(&mut link, batch(0, 5, 0));
        assert_eq!(taken(&mut link), (0, 5));
    }
    assert_eq!(
        std::fs::read_dir(root.path().join("store"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn a_store_that_is_gone_costs_its_windows_not_the_link() {
    let root = tempfile::tempdir().unwrap();
    let mut connector = start(root.path());
    std::fs::remove_dir(root.path().join("store")).unwrap();
    let mut link = connect(&mut connector);
    for window in 0..3 {
        send(&mut link, batch(window, 5, 0));
        assert_eq!(taken(&mut link), (window, 5));
    }
}
