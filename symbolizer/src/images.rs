//! The process images that samples name and what each has mapped, as the sampler told. Knows no files and no tables.

use std::collections::HashMap;

use ipc_proto::codec::Bytes;
use ipc_proto::ids::{ExecutableId, ImageId, Pid};
use ipc_proto::sample::{self as wire, Backing, Mapping};

/// Bytes of all images and mappings: beyond it the image unused for longest is forgotten, and its samples keep their
/// addresses only.
const MAX_BYTES: usize = 32 << 20;
/// Mappings of one image; the sampler's own bound.
const MAX_MAPPINGS: usize = 1 << 16;

/// One image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) pid: Pid,
    /// CLOCK_BOOTTIME nanoseconds; 0 when unknown.
    pub(crate) start_time: u64,
    pub(crate) comm: Bytes<16>,
    pub(crate) parent: Pid,
    /// In the sampler's order; a later one covers earlier ones.
    mappings: Vec<Mapping>,
    last_used: u64,
    /// Set when the sampler names it no more: which windows may still.
    gone_in: Option<u64>,
}

impl Image {
    /// A mapping by the sampler's index.
    pub(crate) fn get(&self, index: u32) -> Option<&Mapping> {
        self.mappings.get(index as usize)
    }

    /// The mapping in place around an address, with its index.
    pub(crate) fn find(&self, address: u64) -> Option<(u32, &Mapping)> {
        let found = self
            .mappings
            .iter()
            .enumerate()
            .rfind(|(_, mapping)| (mapping.start..mapping.end).contains(&address));
        found.map(|(index, mapping)| (index as u32, mapping))
    }

    /// The mapping of an executable, while the process is not known to be gone.
    pub(crate) fn live_mapping(&self, executable: ExecutableId) -> Option<&Mapping> {
        let mut mappings = self.mappings.iter().rev();
        let found = mappings.find(|mapping| {
            mapping.backing == Backing::File as u8 && mapping.executable == executable
        });
        found.filter(|_| self.gone_in.is_none())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + 64 + self.mappings.capacity() * size_of::<Mapping>()
    }
}

/// All images.
#[derive(Debug, Default)]
pub(crate) struct Images {
    all: HashMap<ImageId, Image>,
    bytes: usize,
    clock: u64,
    forgotten: u64,
}

impl Images {
    /// An image that messages will name.
    pub(crate) fn announce(&mut self, message: wire::Image) {
        self.clock += 1;
        let image = Image {
            pid: message.pid,
            start_time: message.start_time,
            comm: message.comm,
            parent: message.parent,
            last_used: self.clock,
            ..Image::default()
        };
        self.bytes += image.bytes();
        if let Some(old) = self.all.insert(message.id, image) {
            self.bytes -= old.bytes();
        }
        self.shrink();
    }

    /// More mappings of an image. Those of a forgotten image are ignored.
    pub(crate) fn map(&mut self, message: wire::Mappings) {
        let Some(image) = self.all.get_mut(&message.image) else {
            return;
        };
        self.bytes -= image.bytes();
        if message.first as usize == image.mappings.len()
            && image.mappings.len() + message.mappings.0.len() <= MAX_MAPPINGS
        {
            image.mappings.extend(message.mappings.0);
        }
        self.bytes += image.bytes();
        self.shrink();
    }

    /// An image that a message names.
    pub(crate) fn named(&mut self, id: ImageId) -> Option<&Image> {
        self.clock += 1;
        let image = self.all.get_mut(&id)?;
        image.last_used = self.clock;
        Some(image)
    }

    /// An image.
    pub(crate) fn get(&self, id: ImageId) -> Option<&Image> {
        self.all.get(&id)
    }

    /// The sampler names the image no more; `window`: the newest window that may.
    pub(crate) fn retire(&mut self, id: ImageId, window: u64) {
        if let Some(image) = self.all.get_mut(&id) {
            image.gone_in = Some(window);
        }
    }

    /// Forgets the images that only windows before `oldest` could name.
    pub(crate) fn forget_before(&mut self, oldest: u64) {
        let bytes = &mut self.bytes;
        self.all.retain(|_, image| {
            let keep = image.gone_in.is_none_or(|window| window >= oldest);
            if !keep {
                *bytes -= image.bytes();
            }
            keep
        });
    }

    /// A new sampler: other images.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
        self.bytes = 0;
    }

    /// Forgets the images unused for longest, an eighth of the budget at once: finding them takes a look at all.
    fn shrink(&mut self) {
        if self.bytes <= MAX_BYTES {
            return;
        }
        let mut by_age: Vec<(u64, ImageId)> = self
            .all
            .iter()
            .map(|(id, image)| (image.last_used, *id))
            .collect();
        by_age.sort_unstable();
        for (_, id) in by_age {
            if self.bytes <= MAX_BYTES / 8 * 7 {
                return;
            }
            if let Some(image) = self.all.remove(&id) {
                self.bytes -= image.bytes();
                self.forgotten += 1;
            }
        }
    }

    /// Number of images.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Images forgotten for want of room.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use ipc_proto::codec::List;

    use super::*;

    fn announce(images: &mut Images, id: u64) {
        images.announce(wire::Image {
            id: ImageId(id),
            pid: Pid(id as u32),
            ..wire::Image::default()
        });
    }

    fn map(images: &mut Images, id: u64, first: u32, starts: &[u64]) {
        let mappings = starts.iter().map(|&start| Mapping {
            start,
            end: start + 100,
            ..Mapping::default()
        });
        images.map(wire::Mappings {
            image: ImageId(id),
            first,
            mappings: List(mappings.collect()),
        });
    }

    #[test]
    fn a_later_mapping_covers_an_earlier_one() {
        let mut images = Images::default();
        announce(&mut images, 1);
        map(&mut images, 1, 0, &[100, 300]);
        map(&mut images, 1, 2, &[150]);
        // Told twice: the list is not what the sampler thinks, so nothing is taken.
        map(&mut images, 1, 2, &[500]);
        let image = images.get(ImageId(1)).unwrap();
        let index = |address| image.find(address).map(|(index, _)| index);
        assert_eq!(
            [120, 160, 249, 399, 99, 400, 550].map(index),
            [Some(0), Some(2), Some(2), Some(1), None, None, None]
        );
        assert_eq!(image.get(1).map(|mapping| mapping.start), Some(300));
    }

    #[test]
    fn a_gone_image_stays_for_the_windows_that_name_it() {
        let mut images = Images::default();
        announce(&mut images, 1);
        announce(&mut images, 2);
        images.retire(ImageId(1), 7);
        images.forget_before(7);
        assert_eq!(images.len(), 2);
        images.forget_before(8);
        assert!(images.get(ImageId(1)).is_none() && images.get(ImageId(2)).is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_images_unused_for_longest_go_first() {
        let mut images = Images::default();
        let starts: Vec<u64> = (0..512).map(|nth| nth * 1000).collect();
        for id in 1..=4000 {
            announce(&mut images, id);
            map(&mut images, id, 0, &starts);
            let _used = images.named(ImageId(1));
        }
        assert!(images.bytes() <= MAX_BYTES);
        assert!(images.forgotten() > 0);
        assert!(images.get(ImageId(1)).is_some(), "used all the time");
        assert!(images.get(ImageId(2)).is_none());
        let counted: usize = images.all.values().map(Image::bytes).sum();
        assert_eq!(counted, images.bytes());
        images.clear();
        assert_eq!((images.len(), images.bytes()), (0, 0));
    }
}
