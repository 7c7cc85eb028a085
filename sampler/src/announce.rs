//! What the peers must hear of an image before a message may name it.

use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::{ExecutableId, Pid};
use ipc_proto::limits::{MAX_MAPPINGS, MAX_PATH};
use ipc_proto::opener::{OpenerRequest, Sampled};
use ipc_proto::sample as wire;
use ipc_proto::sample::{Backing, SamplerMessage};

use crate::engine::Action;
use crate::executables::{Executables, Identity, TableState};
use crate::image::Image;

/// How long an unwind table may take before it is asked for again, nanoseconds.
const TABLE_PATIENCE: u64 = 30_000_000_000;

/// Path of the executable that an image's first file mapping belongs to.
fn main_path(image: &Image, executables: &mut Executables) -> Bytes<MAX_PATH> {
    let first = image
        .mappings
        .all
        .iter()
        .find(|mapping| mapping.backing == Backing::File as u8);
    let path = first
        .and_then(|mapping| executables.get_mut(mapping.executable))
        .map(|found| found.path.as_slice());
    Bytes::cut(path.unwrap_or_default())
}

/// Says of an image what the symbolizer does not know yet, and names its executables to the opener. `now`:
/// CLOCK_MONOTONIC, nanoseconds.
pub(crate) fn announce_image(
    image: &mut Image,
    executables: &mut Executables,
    now: u64,
    actions: &mut Vec<Action>,
) {
    let known = image.announced.unwrap_or(0);
    let mut asks = Vec::new();
    if image.announced.is_none() {
        asks.push(sampled(image, main_path(image, executables)));
        send(
            actions,
            SamplerMessage::Image(wire::Image {
                id: image.id,
                pid: Pid(image.pid),
                start_time: image.start_time,
                comm: Bytes::cut(&image.comm),
                parent: Pid(image.parent),
            }),
        );
    }
    let all = &image.mappings.all;
    let Some(new) = all.get(known..) else { return };
    for mapping in new
        .iter()
        .filter(|mapping| mapping.backing == Backing::File as u8)
    {
        asks.extend(announce_executable(
            image,
            mapping,
            executables,
            now,
            actions,
        ));
    }
    for (piece, mappings) in new.chunks(MAX_MAPPINGS).enumerate() {
        send(
            actions,
            SamplerMessage::Mappings(wire::Mappings {
                image: image.id,
                first: (known + piece * MAX_MAPPINGS) as u32,
                mappings: List(mappings.to_vec()),
            }),
        );
    }
    image.announced = Some(all.len());
    actions.extend(asks);
}

/// Asks for the unwind table of an executable that an image has mapped: the kernel side gave it up and lacks it now.
pub(crate) fn ask_table(
    image: &Image,
    executable: ExecutableId,
    executables: &mut Executables,
    now: u64,
    actions: &mut Vec<Action>,
) {
    let mapping = image
        .mappings
        .live()
        .find(|mapping| mapping.backing == Backing::File as u8 && mapping.executable == executable);
    if let Some(mapping) = mapping {
        let ask = announce_executable(image, mapping, executables, now, actions);
        actions.extend(ask);
    }
}

fn sampled(image: &Image, path: Bytes<MAX_PATH>) -> Action {
    Action::Ask(OpenerRequest::Sampled(Sampled {
        pid: Pid(image.pid),
        start_time: image.start_time,
        path,
    }))
}

fn send(actions: &mut Vec<Action>, message: SamplerMessage) {
    actions.push(Action::Send {
        message,
        samples: 0,
    });
}

/// Names an executable to the symbolizer unless it knows it; returns what the opener must hear of it after that.
fn announce_executable(
    image: &Image,
    mapping: &wire::Mapping,
    executables: &mut Executables,
    now: u64,
    actions: &mut Vec<Action>,
) -> Option<Action> {
    let executable = executables.get_mut(mapping.executable)?;
    let wanted = match executable.table {
        TableState::Unknown | TableState::Absent { retry: true } => true,
        TableState::Asked(asked) => now.saturating_sub(asked) > TABLE_PATIENCE,
        TableState::Installed | TableState::Absent { retry: false } => false,
    };
    if executable.announced && !wanted {
        return None;
    }
    executable.announced = true;
    let mut ask = None;
    if wanted {
        executable.table = TableState::Asked(now);
        // Should the process end before its file is opened, it may be opened by its path.
        ask = Some(sampled(image, Bytes::cut(&executable.path)));
    }
    let (build_id, device, inode) = match &executable.identity {
        Identity::BuildId(build_id) => (build_id.clone(), 0, 0),
        Identity::Inode { device, inode } => (Vec::new(), *device, *inode),
    };
    let message = SamplerMessage::Executable(wire::Executable {
        id: mapping.executable,
        build_id: Bytes(build_id),
        device,
        inode,
        path: Bytes::cut(&executable.path),
        pid: Pid(image.pid),
        start_time: image.start_time,
        mapping_start: mapping.start,
        mapping_end: mapping.end,
        table_wanted: wanted,
    });
    send(actions, message);
    ask
}
