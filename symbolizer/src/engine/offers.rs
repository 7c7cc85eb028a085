//! The part of the engine that offers executables to the debuginfo-uploader: one offer for each build ID, made when it is
//! known whether there is a separate debug file, and as many as the uploader has room for.

use std::collections::{HashSet, VecDeque};
use std::fs::File;

use ipc_proto::debuginfo::DebuginfoOffer;
use ipc_proto::ids::{BuildId, ExecutableId};
use leadsman_symbolizer::debuglink::DebugFileWanted;

use super::{Action, Engine};
use crate::executables::DebugFiles;
use crate::requests::Purpose;

/// Build IDs offered that are remembered; beyond it all are forgotten, and the uploader knows them.
const MAX_KNOWN: usize = 65_536;
/// Executables whose files are kept open for an offer; the files of others are opened once more.
const MAX_KEPT: usize = 256;

/// A file and its size in bytes.
pub(crate) type Sized = (File, u64);

/// What an executable's offer takes.
#[derive(Debug, Default)]
pub(crate) struct Offering {
    /// The executable.
    pub(crate) file: Option<Sized>,
    /// Its debug file.
    pub(crate) debug_file: Option<Sized>,
    /// The way to the debug file that was found.
    pub(crate) found: Option<DebugFileWanted>,
}

/// All offers.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// How many more the uploader takes; `None`: there is none, or none that wants any.
    pub(super) room: Option<u32>,
    known: HashSet<BuildId>,
    waiting: VecDeque<ExecutableId>,
    /// Their files are being opened once more; each has its room already.
    opening: HashSet<ExecutableId>,
    /// Offers made.
    pub(crate) made: u64,
}

impl Offers {
    /// Whether a file that is here now should be kept for its offer.
    pub(super) fn keeps_files(&self) -> bool {
        self.room.is_some() && self.waiting.len() < MAX_KEPT
    }

    fn take_room(&mut self) -> bool {
        match &mut self.room {
            Some(room) if *room > 0 => {
                *room -= 1;
                true
            }
            _ => false,
        }
    }

    fn give_back(&mut self, id: ExecutableId) {
        if self.opening.remove(&id)
            && let Some(room) = &mut self.room
        {
            *room += 1;
        }
    }
}

impl Engine {
    /// The uploader has room for more offers.
    pub(crate) fn on_offer_room(&mut self, offers: u32, now: u64) {
        if self.offers.room.is_none() {
            // It knows of none that were found before.
            self.offers.waiting = self.executables.settled().into();
        }
        let room = self.offers.room.get_or_insert_default();
        *room = room.saturating_add(offers);
        self.make_offers(now);
    }

    /// The uploader is gone; the next one is to be offered everything.
    pub(crate) fn on_uploader_down(&mut self) {
        self.offers = Offers {
            made: self.offers.made,
            ..Offers::default()
        };
        self.executables.forget_offerings();
    }

    /// The uploader could not use an offer: it is made again when there is room.
    pub(crate) fn on_offer_refused(&mut self, build_id: &BuildId, now: u64) {
        if self.offers.known.remove(build_id)
            && let Some(id) = self.executables.of_build(build_id)
        {
            self.offers.waiting.push_back(id);
            self.make_offers(now);
        }
    }

    /// Other executables have these numbers now.
    pub(super) fn forget_waiting_offers(&mut self) {
        self.offers.waiting.clear();
        for id in std::mem::take(&mut self.offers.opening) {
            self.offers.opening.insert(id);
            self.offers.give_back(id);
        }
    }

    /// It is known now whether an executable has a debug file.
    pub(super) fn settle_debug_files(&mut self, id: ExecutableId, now: u64) {
        if let Some(executable) = self.executables.get_mut(id) {
            executable.debug_files = DebugFiles::Settled;
        }
        if self.offers.room.is_some() {
            self.offers.waiting.push_back(id);
            self.make_offers(now);
        }
    }

    fn make_offers(&mut self, now: u64) {
        while !self.offers.waiting.is_empty() && self.offers.take_room() {
            if let Some(id) = self.offers.waiting.pop_front() {
                self.offers.opening.insert(id);
                self.make_offer(id, now);
            }
        }
    }

    /// Makes an offer, or asks for the next file that it takes.
    fn make_offer(&mut self, id: ExecutableId, now: u64) {
        let Some(executable) = self.executables.get_mut(id) else {
            return self.offers.give_back(id);
        };
        let build_id = executable.best_build_id().clone();
        if build_id.0.is_empty() || self.offers.known.contains(&build_id) {
            (executable.offering.file, executable.offering.debug_file) = (None, None);
            return self.offers.give_back(id);
        }
        let offering = &executable.offering;
        let request = if offering.file.is_none() {
            Some((Purpose::Offer(id), executable.open_request()))
        } else if offering.debug_file.is_none() {
            let found = offering.found.as_ref();
            found.map(|wanted| {
                let request = executable.debug_file_request(wanted);
                (Purpose::OfferDebugFile(id), request)
            })
        } else {
            None
        };
        if let Some((purpose, request)) = request {
            match self.requests.ask(purpose, request, now) {
                Some(request) => self.actions.push(Action::Ask(request)),
                None => self.offers.give_back(id),
            }
            return;
        }
        let path = executable.about.path.clone();
        let offering = std::mem::take(&mut executable.offering);
        // A later uploader is to find it again.
        executable.offering.found.clone_from(&offering.found);
        let size = |file: &Option<Sized>| file.as_ref().map_or(0, |(_, size)| *size);
        let offer = DebuginfoOffer {
            size: size(&offering.file),
            debug_size: size(&offering.debug_file),
            build_id: build_id.clone(),
            path,
        };
        let files = [offering.file, offering.debug_file].into_iter().flatten();
        let files = files.map(|(file, _)| file).collect();
        // The room is used.
        self.offers.opening.remove(&id);
        if self.offers.known.len() >= MAX_KNOWN {
            self.offers.known.clear();
        }
        self.offers.known.insert(build_id);
        self.offers.made += 1;
        self.actions.push(Action::Offer(offer, files));
    }

    /// A file came that was opened once more for an offer, or none did.
    pub(super) fn on_offer_file(&mut self, purpose: Purpose, file: Option<Sized>, now: u64) {
        let (Purpose::Offer(id) | Purpose::OfferDebugFile(id)) = purpose else {
            return;
        };
        if !self.offers.opening.contains(&id) {
            return;
        }
        let Some(executable) = self.executables.get_mut(id) else {
            return self.offers.give_back(id);
        };
        match (purpose, file) {
            (Purpose::Offer(_), None) => {
                // Another process that maps it will bring it again.
                executable.offering.file = None;
                self.offers.give_back(id);
                return self.make_offers(now);
            }
            (Purpose::Offer(_), file) => executable.offering.file = file,
            (_, None) => executable.offering.found = None,
            (_, file) => executable.offering.debug_file = file,
        }
        self.make_offer(id, now);
    }
}
