//! Compares a section of the extract with what it came from.

use std::io::{self, Read};

use flate2::read::ZlibDecoder;
use leadsman_executable::file_bytes::FileBytes;

use super::{BUFFER, compress};
use crate::fault::Fault;
use crate::headers::{Class, SectionHeader};

fn differs(section: &SectionHeader) -> Fault {
    Fault::Differs(format!("the section at {:#x} is damaged", section.offset))
}

/// A section that was copied.
pub(super) fn copied(
    source: &FileBytes,
    original: &SectionHeader,
    extract: &FileBytes,
    written: &SectionHeader,
) -> Result<(), Fault> {
    let mut done = 0;
    while done < original.size {
        let length = BUFFER.min(original.size.saturating_sub(done));
        let wanted = source.read(original.offset.saturating_add(done), length)?;
        let found = extract.read(written.offset.saturating_add(done), length)?;
        if wanted != found {
            return Err(differs(original));
        }
        done = done.saturating_add(length);
    }
    Ok(())
}

/// Reads on from a place of a file.
struct At<'a> {
    file: &'a FileBytes,
    offset: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (buffer.len() as u64).min(self.end.saturating_sub(self.offset));
        let bytes = self.file.read(self.offset, length);
        let bytes = bytes.map_err(io::Error::other)?;
        let (start, _rest) = buffer
            .split_at_mut_checked(bytes.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        start.copy_from_slice(&bytes);
        self.offset = self.offset.saturating_add(length);
        Ok(bytes.len())
    }
}

/// A section that was compressed.
pub(super) fn deflated(
    source: &FileBytes,
    original: &SectionHeader,
    class: Class,
    extract: &FileBytes,
    written: &SectionHeader,
) -> Result<(), Fault> {
    let packed = At {
        file: extract,
        offset: written.offset.saturating_add(compress::header_size(class)),
        end: written.offset.saturating_add(written.size),
    };
    let mut decoder = ZlibDecoder::new(io::BufReader::new(packed));
    let mut found = vec![0; BUFFER as usize];
    let mut done = 0;
    while done < original.size {
        let length = BUFFER.min(original.size.saturating_sub(done));
        let wanted = source.read(original.offset.saturating_add(done), length)?;
        let found = found
            .get_mut(..wanted.len())
            .ok_or_else(|| differs(original))?;
        decoder
            .read_exact(found)
            .map_err(|_damaged| differs(original))?;
        if *wanted != *found {
            return Err(differs(original));
        }
        done = done.saturating_add(length);
    }
    match decoder.read(&mut [0]) {
        Ok(0) => Ok(()),
        _ => Err(differs(original)),
    }
}
