//! Makes one offered file ready for its upload: chooses what to send, extracts, checks, and takes the hash. Holds one
//! buffer and, for files that are small enough, the tables that names are read from.

use std::fs::File;
use std::hash::Hasher;

use leadsman_executable::file_bytes::FileBytes;
use twox_hash::XxHash64;

use crate::check::{self, Checked};
use crate::contents::Symbols;
use crate::extract::{self, BUFFER};
use crate::fault::Fault;
use crate::headers::Headers;

/// How files are made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Send what naming addresses takes; else the file as it is.
    pub strip: bool,
    /// Compress DWARF sections of what is extracted.
    pub compress: bool,
}

/// What is sent.
#[derive(Debug)]
pub struct Prepared {
    /// The file.
    pub file: File,
    /// Its bytes.
    pub size: u64,
    /// xxHash64 of all of them, hexadecimal.
    pub hash: String,
    /// How the extract was compared; `None`: it is the file itself.
    pub checked: Option<Checked>,
}

/// Chooses between an executable and its debug file: whichever names more, the debug file first.
///
/// # Errors
/// Neither names anything.
pub fn choose(executable: File, debug_file: Option<File>) -> Result<Chosen, Fault> {
    let debug_file = debug_file.and_then(|file| Chosen::read(file, true).ok());
    match (Chosen::read(executable, false), debug_file) {
        (Ok(own), Some(other)) if own.symbols > other.symbols => Ok(own),
        (_, Some(other)) => Ok(other),
        (own, None) => own,
    }
}

/// A file that can be sent.
#[derive(Debug)]
pub struct Chosen {
    file: File,
    bytes: FileBytes,
    headers: Headers,
    symbols: Symbols,
    separate: bool,
}

impl Chosen {
    fn read(file: File, separate: bool) -> Result<Self, Fault> {
        let bytes = FileBytes::of_file(file.try_clone().map_err(Fault::Read)?)?;
        let headers = Headers::read(&bytes)?;
        let symbols = Symbols::of(&bytes, &headers)?;
        if symbols == Symbols::None {
            return Err(Fault::NoSymbols);
        }
        Ok(Self {
            file,
            bytes,
            headers,
            symbols,
            separate,
        })
    }

    /// What names its addresses.
    #[must_use]
    pub fn symbols(&self) -> Symbols {
        self.symbols
    }

    /// Whether it is the separate debug file.
    #[must_use]
    pub fn is_debug_file(&self) -> bool {
        self.separate
    }

    /// Bytes that [`Self::prepare`] may write at most.
    #[must_use]
    pub fn most_bytes(&self) -> u64 {
        self.bytes.len().saturating_add(1 << 20)
    }

    /// Whether [`Self::prepare`] writes a temporary file. A debug file has little else than debuginfo.
    #[must_use]
    pub fn needs_temporary(&self, options: Options) -> bool {
        options.strip && (!self.separate || options.compress)
    }

    /// Makes what is sent; `temporary` opens an empty file that is gone when it is closed.
    ///
    /// # Errors
    /// A file can't be read or written, or the extract does not say what the original says.
    pub fn prepare(
        self,
        options: Options,
        temporary: impl FnOnce() -> std::io::Result<File>,
    ) -> Result<Prepared, Fault> {
        if !self.needs_temporary(options) {
            let hash = hash(&self.bytes)?;
            return Ok(Prepared {
                size: self.bytes.len(),
                file: self.file,
                hash,
                checked: None,
            });
        }
        let file = temporary().map_err(Fault::Write)?;
        let extract = extract::write(&self.bytes, &self.headers, &file, options.compress)?;
        let written = FileBytes::of_file(file.try_clone().map_err(Fault::Write)?)?;
        if written.len() != extract.size {
            return Err(Fault::Differs("it has another size".to_owned()));
        }
        extract.compare(&self.bytes, &written)?;
        if Symbols::of(&written, &Headers::read(&written)?)? != self.symbols {
            return Err(Fault::Differs("it lost its symbols".to_owned()));
        }
        let checked = check::names(&self.bytes, &self.headers, || {
            Ok((self.file.try_clone()?, file.try_clone()?))
        })?;
        Ok(Prepared {
            hash: hash(&written)?,
            size: extract.size,
            file,
            checked: Some(checked),
        })
    }
}

fn hash(bytes: &FileBytes) -> Result<String, Fault> {
    let mut hash = XxHash64::with_seed(0);
    let mut done = 0;
    while done < bytes.len() {
        let part = bytes.read_up_to(done, BUFFER)?;
        if part.is_empty() {
            return Err(Fault::Malformed("it became shorter"));
        }
        hash.write(&part);
        done = done.saturating_add(part.len() as u64);
    }
    Ok(format!("{:016x}", hash.finish()))
}
