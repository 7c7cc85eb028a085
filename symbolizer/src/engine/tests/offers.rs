//! What is offered to the uploader, when, and how often.

use ipc_proto::opener::OpenDebugFile;
use leadsman_symbolizer::build_id::BuildId as NoteId;
use leadsman_symbolizer::debuglink::DebugFileWanted;

use super::*;

/// An offer: build ID, and the files that go with it.
type Offered = (Vec<u8>, usize);

impl World {
    fn room(&mut self, offers: u32) {
        self.engine.on_offer_room(offers, self.now);
        self.left.extend(self.engine.take_actions());
    }

    /// The naming thread read the executable.
    fn read(&mut self, build_id: &[u8], wanted: Vec<DebugFileWanted>) {
        let key = self.engine.run.key(ExecutableId(5));
        let build_id = Bytes(build_id.to_vec());
        let answer = NameAnswer::Executable {
            key,
            build_id,
            wanted,
        };
        self.engine.on_named(answer, self.now);
        self.left.extend(self.engine.take_actions());
    }

    fn debug_file_read(&mut self, taken: bool) {
        let key = self.engine.run.key(ExecutableId(5));
        let answer = NameAnswer::DebugFile { key, taken };
        self.engine.on_named(answer, self.now);
        self.left.extend(self.engine.take_actions());
    }

    /// Requests for files since the last look; other actions stay.
    fn asked(&mut self) -> Vec<OpenerRequest> {
        let (asked, left) = self
            .take()
            .into_iter()
            .partition(|action| matches!(action, Action::Ask(_)));
        self.left = left;
        let asked: Vec<Action> = asked;
        let requests = asked.into_iter().map(|action| match action {
            Action::Ask(request) => request,
            other => panic!("{other:?}"),
        });
        requests.collect()
    }

    /// Answers the request that was made last.
    fn open(&mut self, request: &OpenerRequest, status: OpenStatus) {
        let request = match request {
            OpenerRequest::OpenExecutable(wanted) => wanted.request,
            OpenerRequest::OpenDebugFile(wanted) => wanted.request,
            other => panic!("{other:?}"),
        };
        let opened = Opened {
            request,
            status: status as u8,
            size: 7,
            ..Opened::default()
        };
        let file = if status == OpenStatus::Opened {
            file()
        } else {
            None
        };
        self.engine.on_opened(&opened, file, self.now);
        self.left.extend(self.engine.take_actions());
    }

    fn offered(&mut self) -> Vec<Offered> {
        let actions = self.take();
        let offers = actions.into_iter().filter_map(|action| match action {
            Action::Offer(offer, files) => {
                assert_eq!(offer.debug_size != 0, files.len() == 2);
                Some((offer.build_id.0, files.len()))
            }
            _ => None,
        });
        offers.collect()
    }

    /// An executable whose file came; nothing is known of a debug file yet.
    fn opened(&mut self) {
        self.map(&[0xab], false);
        let request = self.asked().pop().expect("asked");
        self.open(&request, OpenStatus::Opened);
    }
}

fn by_build_id() -> Vec<DebugFileWanted> {
    vec![DebugFileWanted::ByBuildId(NoteId::new(&[0xab]).unwrap())]
}

#[test]
fn an_executable_is_offered_once_when_it_was_read() {
    let mut world = World::new();
    world.room(4);
    world.opened();
    assert_eq!(world.offered(), [], "it may have a debug file");
    world.read(&[0xab], Vec::new());
    assert_eq!(world.offered(), [(vec![0xab], 1)]);
    world.read(&[0xab], Vec::new());
    assert_eq!(world.offered(), []);
}

#[test]
fn without_room_nothing_is_offered_and_no_file_is_kept() {
    let mut world = World::new();
    world.opened();
    world.read(&[0xab], Vec::new());
    assert_eq!(world.offered(), []);
    assert!(world.asked().is_empty());
    // An uploader came: the file is opened once more.
    world.room(1);
    let request = world.asked().pop().expect("asked again");
    assert_eq!(world.offered(), []);
    world.open(&request, OpenStatus::Opened);
    assert_eq!(world.offered(), [(vec![0xab], 1)]);
}

#[test]
fn a_debug_file_goes_with_its_executable() {
    for taken in [true, false] {
        let mut world = World::new();
        world.room(4);
        world.opened();
        world.read(&[0xab], by_build_id());
        let request = world.asked().pop().expect("asked");
        assert!(matches!(request, OpenerRequest::OpenDebugFile(_)));
        assert_eq!(world.offered(), []);
        world.open(&request, OpenStatus::Opened);
        world.debug_file_read(taken);
        assert_eq!(world.offered(), [(vec![0xab], 1 + usize::from(taken))]);
    }
}

#[test]
fn a_new_uploader_is_offered_everything_again() {
    let mut world = World::new();
    world.room(4);
    world.opened();
    world.read(&[0xab], by_build_id());
    let request = world.asked().pop().expect("asked");
    world.open(&request, OpenStatus::Opened);
    world.debug_file_read(true);
    assert_eq!(world.offered(), [(vec![0xab], 2)]);
    world.engine.on_uploader_down();
    world.room(4);
    let request = world.asked().pop().expect("the executable is asked for");
    world.open(&request, OpenStatus::Opened);
    let request = world.asked().pop().expect("and its debug file");
    let build_id = match &request {
        OpenerRequest::OpenDebugFile(OpenDebugFile { build_id, .. }) => build_id.0.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(build_id, [0xab]);
    world.open(&request, OpenStatus::NotFound);
    // It is gone by now: the executable alone is better than nothing.
    assert_eq!(world.offered(), [(vec![0xab], 1)]);
}

#[test]
fn what_the_uploader_gave_up_is_offered_again_and_a_lost_file_costs_no_room() {
    let mut world = World::new();
    world.room(1);
    world.opened();
    world.read(&[0xab], Vec::new());
    assert_eq!(world.offered().len(), 1);
    let build_id = Bytes(vec![0xab]);
    world.engine.on_offer_refused(&build_id, world.now);
    assert!(world.asked().is_empty(), "no room yet");
    world.room(1);
    let request = world.asked().pop().expect("asked");
    world.open(&request, OpenStatus::Refused);
    assert_eq!(world.offered(), []);
    world.engine.on_offer_refused(&build_id, world.now);
    assert_eq!(world.engine.offers.room, Some(1), "given back");
}
