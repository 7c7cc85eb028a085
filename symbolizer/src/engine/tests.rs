//! Events in, actions out: the engine against a pretended sampler, opener, threads and shipper.

use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::{ExecutableId, Pid, Tid};
use ipc_proto::opener::Opened;
use ipc_proto::sample::{self as wire, CountedStack, Frame, ImageGone, Mappings, WindowEnd};
use ipc_proto::table_file::TableWriter;
use leadsman_ebpf::limits::CHUNK_BYTES;
use leadsman_ebpf::registers::number;
use leadsman_ebpf::rule::Rule;
use leadsman_ebpf::table::CHUNK_HEADER;

mod offers;

use super::*;
use crate::symbolize::Namer;
use crate::table_worker::TableResult;

const TEXT: u64 = 0x40_0000;
const SECOND: u64 = 1_000_000_000;

/// A table with one rule for the first 64 KiB of the file.
fn table(rule: Rule) -> Vec<u8> {
    let mut chunk = [0; CHUNK_BYTES];
    (chunk[0], chunk[2]) = (1, 1);
    chunk[CHUNK_HEADER..CHUNK_HEADER + 8].copy_from_slice(&rule.0.to_le_bytes());
    let mut writer = TableWriter::default();
    writer.begin_region(0);
    writer.push_chunk(0, &chunk);
    writer.encode()
}

/// The engine with its surroundings.
struct World {
    engine: Engine,
    namer: Namer,
    now: u64,
    /// Actions that nobody looked at yet.
    left: Vec<Action>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            engine: Engine::default(),
            namer: Namer::new(Arc::default()),
            now: 100 * SECOND,
            left: Vec::new(),
        };
        world.engine.on_sampler_up();
        world.say(SamplerMessage::Start(Start {
            frequency: 19,
            clock_offset: 7,
            ..Start::default()
        }));
        let image = wire::Image {
            id: ImageId(1),
            pid: Pid(10),
            comm: Bytes(b"comm".to_vec()),
            ..wire::Image::default()
        };
        world.say(SamplerMessage::Image(image));
        world.take();
        world
    }

    fn say(&mut self, message: SamplerMessage) {
        let now = self.now;
        self.engine.on_sampler(message, Vec::new(), now).unwrap();
        self.left.extend(self.engine.take_actions());
    }

    fn take(&mut self) -> Vec<Action> {
        self.left.extend(self.engine.take_actions());
        std::mem::take(&mut self.left)
    }

    /// An executable with its mapping at [`TEXT`].
    fn map(&mut self, build_id: &[u8], table_wanted: bool) {
        self.announce(build_id, table_wanted);
        self.say(SamplerMessage::Mappings(Mappings {
            image: ImageId(1),
            first: 0,
            mappings: List(vec![Mapping {
                start: TEXT,
                end: TEXT + 0x1_0000,
                file_offset: 0,
                backing: Backing::File as u8,
                executable: ExecutableId(5),
            }]),
        }));
    }

    fn announce(&mut self, build_id: &[u8], table_wanted: bool) {
        self.say(SamplerMessage::Executable(Executable {
            id: ExecutableId(5),
            build_id: Bytes(build_id.to_vec()),
            path: Bytes(b"/bin/x".to_vec()),
            pid: Pid(10),
            table_wanted,
            ..Executable::default()
        }));
    }

    fn stack(&mut self, window: u64, count: u64) {
        self.say(SamplerMessage::Batch(SampleBatch {
            window: WindowId(window),
            stacks: List(vec![CountedStack {
                image: ImageId(1),
                tid: Tid(11),
                count,
                stop: StopReason::EndOfStack as u8,
                user: List(vec![Frame {
                    mapping: 0,
                    address: TEXT + 1,
                }]),
                ..CountedStack::default()
            }]),
        }));
    }

    fn snapshot(&mut self, window: u64) {
        let mut registers = vec![0; 17];
        registers[usize::from(number::RSP)] = 0x7000;
        registers[16] = TEXT + 1;
        self.say(SamplerMessage::Snapshot(Snapshot {
            window: WindowId(window),
            image: ImageId(1),
            tid: Tid(11),
            stop: StopReason::TableMissing as u8,
            registers: List(registers),
            pc_is_exact: true,
            stack: Bytes(vec![0; 64]),
            ..Snapshot::default()
        }));
    }

    fn end(&mut self, window: u64) {
        self.say(SamplerMessage::WindowEnd(WindowEnd {
            frequency: 19,
            window: WindowId(window),
            start: 5 * SECOND,
            duration: SECOND,
            ..WindowEnd::default()
        }));
    }

    fn table(&mut self, result: TableResult) {
        let key = self.engine.run.key(ExecutableId(5));
        self.engine.on_table(key, result, self.now);
    }

    /// Answers the opener's only open request.
    fn answer(&mut self, status: OpenStatus, file: Option<File>) {
        let requests: Vec<u64> = self
            .take()
            .iter()
            .filter_map(|action| match action {
                Action::Ask(OpenerRequest::OpenExecutable(request)) => Some(request.request),
                _ => None,
            })
            .collect();
        assert_eq!(requests.len(), 1, "one request");
        let opened = Opened {
            request: requests[0],
            status: status as u8,
            ..Opened::default()
        };
        self.engine.on_opened(&opened, file, self.now);
    }

    /// Names the window that was handed to the naming thread, if one was; returns its stop reasons.
    fn name(&mut self) -> Option<Vec<(u64, u8, u64)>> {
        let position = self.left_window()?;
        let Action::Name(NameRequest::Window(job)) = self.left.remove(position) else {
            return None;
        };
        let named = self.namer.name(*job);
        let samples = named.batch.samples.0.iter();
        let samples = samples.map(|sample| (named.batch.window.0, sample.stop, sample.count));
        let samples = samples.collect();
        let answer = NameAnswer::Window(Box::new(named));
        self.engine.on_named(answer, self.now);
        Some(samples)
    }

    fn left_window(&mut self) -> Option<usize> {
        self.left.extend(self.engine.take_actions());
        self.left
            .iter()
            .position(|action| matches!(action, Action::Name(NameRequest::Window(_))))
    }

    fn deliver(&mut self) {
        while let Some(SymbolizedMessage::Batch(batch)) = self.engine.delivery.next() {
            let window = batch.window;
            self.engine.delivery.sent();
            self.engine.on_shipper_taken(window);
        }
    }

    fn told(&mut self) -> Vec<SymbolizerMessage> {
        let told = self.take().into_iter().filter_map(|action| match action {
            Action::TellSampler(message, _) => Some(message),
            _ => None,
        });
        told.collect()
    }
}

fn file() -> Option<File> {
    Some(File::open("/dev/null").unwrap())
}

fn ready(rule: Rule) -> TableResult {
    TableResult::Ready {
        table: Arc::new(table(rule)),
        build_id: Bytes(vec![0xab]),
    }
}

#[test]
fn a_window_goes_to_the_shipper_and_is_acknowledged() {
    let mut world = World::new();
    world.map(&[0xab], false);
    world.answer(OpenStatus::Opened, file());
    world.stack(3, 4);
    world.stack(3, 5);
    world.end(3);
    assert_eq!(
        world.name(),
        Some(vec![(3, StopReason::EndOfStack as u8, 9)])
    );
    assert_eq!(world.told(), [], "not before the shipper took it");
    world.deliver();
    let taken = SymbolizerMessage::Taken(Taken {
        window: WindowId(3),
        samples: 9,
    });
    assert_eq!(world.told(), [taken]);
    let account = &world.engine.delivery.account;
    assert_eq!(
        (account.produced, account.delivered, account.queued()),
        (9, 9, 0)
    );
    assert!(world.engine.is_done());
}

#[test]
fn a_table_comes_from_the_cache_without_its_file() {
    let mut world = World::new();
    world.map(&[0xab], true);
    let looks = world.left.iter().any(|action| {
        matches!(
            action,
            Action::FindTable(TableJob {
                source: TableSource::Cache,
                ..
            })
        )
    });
    assert!(looks);
    world.table(ready(Rule::END));
    let told = world.told();
    assert!(
        matches!(&told[..], [SymbolizerMessage::Table(table)] if table.executable == ExecutableId(5)),
        "{told:?}"
    );
    // Asked again, by a sampler that gave it up meanwhile: from memory.
    world.announce(&[0xab], true);
    assert!(matches!(world.told()[..], [SymbolizerMessage::Table(_)]));
}

#[test]
fn a_table_that_is_not_cached_is_built_from_the_file() {
    for file_first in [true, false] {
        let mut world = World::new();
        world.map(&[0xab], true);
        if file_first {
            world.answer(OpenStatus::Opened, file());
            world.table(TableResult::NotCached);
        } else {
            world.table(TableResult::NotCached);
            world.answer(OpenStatus::Opened, file());
        }
        let actions = world.take();
        let builds = actions.iter().filter(|action| {
            matches!(
                action,
                Action::FindTable(TableJob {
                    source: TableSource::File(_),
                    ..
                })
            )
        });
        assert_eq!(builds.count(), 1, "file first: {file_first}");
        let names = actions
            .iter()
            .filter(|action| matches!(action, Action::Name(NameRequest::Executable { .. })));
        assert_eq!(names.count(), 1);
        world.table(ready(Rule::END));
        assert!(matches!(world.told()[..], [SymbolizerMessage::Table(_)]));
    }
}

#[test]
fn a_file_that_cannot_be_had_is_said_with_whether_it_may_later() {
    for (status, retry) in [
        (OpenStatus::ProcessGone, true),
        (OpenStatus::Refused, false),
    ] {
        let mut world = World::new();
        world.map(&[], true);
        world.answer(status, None);
        let no_table = SymbolizerMessage::NoTable(wire::NoTable {
            executable: ExecutableId(5),
            retry,
        });
        assert_eq!(world.told(), [no_table]);
        // Another process has it mapped.
        world.announce(&[], true);
        world.answer(OpenStatus::Opened, file());
        assert!(world.take().iter().any(|action| matches!(
            action,
            Action::FindTable(TableJob {
                source: TableSource::File(_),
                ..
            })
        )));
    }
}

#[test]
fn a_file_that_comes_late_still_gives_its_table() {
    let mut world = World::new();
    world.map(&[], true);
    world.answer(OpenStatus::TimedOut, None);
    assert!(matches!(world.told()[..], [SymbolizerMessage::NoTable(_)]));
    world.stack(0, 1);
    world.end(0);
    world.answer(OpenStatus::Opened, file());
    world.table(ready(Rule::END));
    assert!(matches!(world.told()[..], [SymbolizerMessage::Table(_)]));
}

#[test]
fn a_file_whose_process_was_gone_is_asked_of_the_next_one() {
    let mut world = World::new();
    world.map(&[0xab], false);
    world.answer(OpenStatus::ProcessGone, None);
    world.say(SamplerMessage::Image(wire::Image {
        id: ImageId(2),
        pid: Pid(20),
        ..wire::Image::default()
    }));
    world.say(SamplerMessage::Mappings(Mappings {
        image: ImageId(2),
        first: 0,
        mappings: List(vec![Mapping {
            start: TEXT + 0x1000,
            end: TEXT + 0x2000,
            executable: ExecutableId(5),
            ..Mapping::default()
        }]),
    }));
    let asked = world.left.iter().find_map(|action| match action {
        Action::Ask(OpenerRequest::OpenExecutable(request)) => Some(request),
        _ => None,
    });
    let asked = asked.map(|request| (request.pid, request.mapping_start));
    assert_eq!(asked, Some((Pid(20), TEXT + 0x1000)));
    world.answer(OpenStatus::Opened, file());
}

#[test]
fn a_snapshot_waits_for_its_table() {
    let mut world = World::new();
    world.map(&[0xab], true);
    world.answer(OpenStatus::Opened, file());
    world.snapshot(0);
    world.end(0);
    assert_eq!(world.name(), None, "the window waits too");
    world.table(ready(Rule::END));
    assert_eq!(
        world.name(),
        Some(vec![(0, StopReason::EndOfStack as u8, 1)])
    );
    assert_eq!(world.engine.counts.walked, [0, 1]);
}

#[test]
fn a_snapshot_whose_table_does_not_come_is_finished_without() {
    let mut world = World::new();
    world.map(&[0xab], true);
    world.answer(OpenStatus::Opened, file());
    world.snapshot(0);
    world.end(0);
    world.now += GRACE - 1;
    world.engine.on_tick(world.now);
    assert_eq!(world.name(), None);
    assert_eq!(world.engine.next_tick(), Some(world.now + 1));
    world.now += 1;
    world.engine.on_tick(world.now);
    assert_eq!(
        world.name(),
        Some(vec![(0, StopReason::TableMissing as u8, 1)])
    );
    let account = &world.engine.delivery.account;
    assert_eq!((account.produced, account.queued()), (1, 1));
}

#[test]
fn a_window_waits_for_the_files_of_its_frames_but_not_for_ever() {
    let mut world = World::new();
    world.map(&[0xab], false);
    world.stack(0, 1);
    world.end(0);
    assert_eq!(world.name(), None);
    world.now += GRACE;
    world.engine.on_tick(world.now);
    assert!(world.name().is_some());
}

#[test]
fn a_sampler_that_ends_leaves_its_last_window() {
    let mut world = World::new();
    world.map(&[0xab], true);
    world.stack(8, 2);
    world.snapshot(8);
    world.now += SECOND;
    world.engine.on_sampler_down(world.now);
    let position = world.left_window().unwrap();
    let Action::Name(NameRequest::Window(job)) = &world.left[position] else {
        unreachable!("just found");
    };
    assert_eq!((job.start, job.duration), (100 * SECOND + 7, SECOND));
    let samples: u64 = world
        .name()
        .unwrap()
        .iter()
        .map(|(_, _, count)| count)
        .sum();
    assert_eq!(samples, 3);
    // The next sampler's numbers are its own; it does not hear of its predecessor's window.
    world.engine.on_sampler_up();
    world.deliver();
    assert_eq!(world.told(), []);
    assert_eq!(world.engine.delivery.account.queued(), 0);
}

#[test]
fn windows_that_naming_can_not_keep_up_with_are_dropped_and_counted() {
    let mut world = World::new();
    world.map(&[0xab], false);
    world.answer(OpenStatus::Opened, file());
    for window in 0..40 {
        world.stack(window, 3);
        world.end(window);
    }
    let account = world.engine.delivery.account.clone();
    assert_eq!(account.produced, 120);
    let dropped = account.dropped["symbolizer_slow"];
    assert!(dropped > 0);
    let taken: u64 = world
        .told()
        .iter()
        .map(|message| match message {
            SymbolizerMessage::Taken(taken) => taken.samples,
            _ => 0,
        })
        .sum();
    assert_eq!(taken, dropped, "the sampler hears of each");
    world.engine.give_up();
    assert_eq!(world.engine.delivery.account.queued(), 0);
}

#[test]
fn nonsense_is_a_violation() {
    let mut engine = Engine::default();
    engine.on_sampler_up();
    let gone = || SamplerMessage::ImageGone(ImageGone::default());
    let start = || SamplerMessage::Start(Start::default());
    assert_eq!(
        engine.on_sampler(gone(), Vec::new(), 0),
        Err(Violation::Start)
    );
    assert_eq!(engine.on_sampler(start(), Vec::new(), 0), Ok(()));
    assert_eq!(
        engine.on_sampler(start(), Vec::new(), 0),
        Err(Violation::Start)
    );
    let files = vec![file().unwrap()];
    assert_eq!(
        engine.on_sampler(gone(), files, 0),
        Err(Violation::Descriptors)
    );
    for (stop, count) in [(0, 1), (200, 1), (1, u64::MAX)] {
        let batch = SampleBatch {
            window: WindowId(0),
            stacks: List(vec![CountedStack {
                stop,
                count,
                ..CountedStack::default()
            }]),
        };
        let said = engine.on_sampler(SamplerMessage::Batch(batch), Vec::new(), 0);
        assert!(said.is_err(), "stop {stop}, count {count}");
    }
}

#[test]
fn an_image_that_was_never_announced_keeps_its_samples() {
    let mut world = World::new();
    world.say(SamplerMessage::Batch(SampleBatch {
        window: WindowId(0),
        stacks: List(vec![CountedStack {
            image: ImageId(77),
            count: 2,
            stop: StopReason::EndOfStack as u8,
            user: List(vec![Frame::default()]),
            ..CountedStack::default()
        }]),
    }));
    world.end(0);
    assert_eq!(
        world.name(),
        Some(vec![(0, StopReason::MappingsUnknown as u8, 2)])
    );
}
