//! Owns the head of one unit of `.debug_info` (DWARF 5, 7.5.1): where its entries are, how they are encoded, and what
//! its root entry says about addresses, strings and lines.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::borrow::Cow;
use std::sync::Arc;

use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugAddr, DebugAddrBase,
    DebugRanges, DebugRngLists, DwAt, Encoding, EndianSlice, EntriesRaw, Format, LittleEndian,
    RangeLists, RangeListsOffset, Reader, UnitOffset, constants,
};

use super::sections::Sections;
use crate::reason::Reason;
use crate::work::Work;

/// Bytes of the longest unit header.
const MAX_HEADER: u64 = 40;
/// Bytes of an entry that are read at first; most are below 40.
const ENTRY: u64 = 512;
/// Bytes of abbreviations that are read at first.
const ABBREVIATIONS: u64 = 8 << 10;
/// Bytes of a range list that are read at first.
const RANGES: u64 = 1024;
/// What a unit's parsed abbreviations are estimated to take.
const ABBREVIATIONS_BYTES: usize = 16 << 10;
/// Ranges of one list.
const MAX_RANGES: usize = 1 << 20;

/// Bytes as gimli reads them.
pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;
/// An attribute's value, of bytes that live for the moment only.
pub(super) type Value<'a> = AttributeValue<Bytes<'a>>;

/// Where a unit is in `.debug_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnitPlace {
    /// Its first byte.
    pub offset: u64,
    /// Behind its last byte.
    pub end: u64,
}

/// The head of a unit.
#[derive(Debug)]
pub(super) struct Unit {
    pub place: UnitPlace,
    /// Its first entry, counted from the unit's first byte.
    pub entries: u64,
    pub encoding: Encoding,
    pub abbreviations: Arc<Abbreviations>,
    pub abbreviations_offset: u64,
    pub language: Option<gimli::DwLang>,
    pub directory: Option<Vec<u8>>,
    pub name: Option<Vec<u8>>,
    /// Place of its line program in `.debug_line`.
    pub line_program: Option<u64>,
    low_pc: u64,
    string_offsets: u64,
    addresses: u64,
    range_lists: u64,
    /// Ranges of addresses its root entry says it covers.
    pub ranges: Vec<(u64, u64)>,
}

/// The fixed part of a unit.
#[derive(Debug)]
pub(super) struct Header {
    pub place: UnitPlace,
    pub entries: u64,
    pub encoding: Encoding,
    pub abbreviations: u64,
    /// Whether it has code: type units have none.
    pub has_code: bool,
}

impl Header {
    /// Reads the header at `offset`.
    pub(super) fn read(sections: &Sections, offset: u64) -> Result<Self, Reason> {
        let bytes = sections.info.read_up_to(offset, MAX_HEADER)?;
        let mut rest = EndianSlice::new(&bytes, LittleEndian);
        let header = Self::parse(&mut rest, offset, bytes.len())
            .map_err(|_error| Reason::DebuginfoDamaged)?;
        if header.place.end > sections.info.len() {
            return Err(Reason::DebuginfoDamaged);
        }
        Ok(header)
    }

    fn parse(rest: &mut Bytes<'_>, offset: u64, total: usize) -> gimli::Result<Self> {
        let (length, format) = rest.read_initial_length()?;
        let before = total.saturating_sub(rest.len()) as u64;
        let end = offset
            .checked_add(before)
            .and_then(|start| start.checked_add(length as u64))
            .ok_or(gimli::Error::UnsupportedOffset)?;
        let version = rest.read_u16()?;
        let mut kind = constants::DW_UT_compile;
        let (address_size, abbreviations) = match version {
            2..=4 => {
                let abbreviations = rest.read_offset(format)?;
                (rest.read_u8()?, abbreviations)
            }
            5 => {
                kind = constants::DwUt(rest.read_u8()?);
                let address_size = rest.read_u8()?;
                let abbreviations = rest.read_offset(format)?;
                match kind {
                    constants::DW_UT_skeleton | constants::DW_UT_split_compile => rest.skip(8)?,
                    constants::DW_UT_type | constants::DW_UT_split_type => {
                        rest.skip(8)?;
                        rest.skip(usize::from(format.word_size()))?;
                    }
                    _ => {}
                }
                (address_size, abbreviations)
            }
            version => return Err(gimli::Error::UnknownVersion(version.into())),
        };
        if !matches!(address_size, 4 | 8) {
            return Err(gimli::Error::UnsupportedAddressSize(address_size));
        }
        Ok(Self {
            place: UnitPlace { offset, end },
            entries: total.saturating_sub(rest.len()) as u64,
            encoding: Encoding {
                address_size,
                format,
                version,
            },
            abbreviations: abbreviations as u64,
            has_code: !matches!(kind, constants::DW_UT_type | constants::DW_UT_split_type),
        })
    }
}

impl Unit {
    /// Reads a unit's head. `shared` are another unit's abbreviations, used when they are this one's too.
    pub(super) fn read(
        sections: &Sections,
        place: UnitPlace,
        shared: Option<(u64, &Arc<Abbreviations>)>,
        work: &Work,
    ) -> Result<Self, Reason> {
        let header = Header::read(sections, place.offset)?;
        let abbreviations = match shared {
            Some((offset, abbreviations)) if offset == header.abbreviations => {
                Arc::clone(abbreviations)
            }
            _ => Arc::new(read_abbreviations(sections, header.abbreviations, work)?),
        };
        let mut unit = Self {
            place: header.place,
            entries: header.entries,
            encoding: header.encoding,
            abbreviations,
            abbreviations_offset: header.abbreviations,
            language: None,
            directory: None,
            name: None,
            line_program: None,
            low_pc: 0,
            string_offsets: default_base(header.encoding, 8),
            addresses: default_base(header.encoding, 8),
            range_lists: default_base(header.encoding, 12),
            ranges: Vec::new(),
        };
        unit.read_root(sections, work)?;
        Ok(unit)
    }

    fn read_root(&mut self, sections: &Sections, work: &Work) -> Result<(), Reason> {
        // Bases first: other attributes of the same entry refer to them (DWARF 5, 3.1.1).
        let mut root = Root::default();
        self.entry(sections, self.entries, work, |name, value| match name {
            constants::DW_AT_str_offsets_base => root.string_offsets = offset_of(&value),
            constants::DW_AT_addr_base | constants::DW_AT_GNU_addr_base => {
                root.addresses = offset_of(&value);
            }
            constants::DW_AT_rnglists_base | constants::DW_AT_GNU_ranges_base => {
                root.range_lists = offset_of(&value);
            }
            constants::DW_AT_stmt_list => root.line_program = offset_of(&value),
            constants::DW_AT_language => {
                if let AttributeValue::Language(language) = value {
                    root.language = Some(language);
                }
            }
            _ => {}
        })?;
        self.string_offsets = root.string_offsets.unwrap_or(self.string_offsets);
        self.addresses = root.addresses.unwrap_or(self.addresses);
        self.range_lists = root.range_lists.unwrap_or(self.range_lists);
        self.line_program = root.line_program;
        self.language = root.language;

        let mut directory = None;
        let mut name = None;
        let mut pc = PcAttributes::default();
        self.entry(sections, self.entries, work, |attribute, value| {
            match attribute {
                constants::DW_AT_comp_dir => directory = self.string(sections, &value),
                constants::DW_AT_name => name = self.string(sections, &value),
                _ => {}
            }
            pc.take(attribute, value, self, sections);
        })?;
        self.directory = directory;
        self.name = name;
        self.low_pc = pc.low.unwrap_or(0);
        let mut ranges = Vec::new();
        pc.ranges(self, sections, work, |begin, end| ranges.push((begin, end)))?;
        self.ranges = ranges;
        Ok(())
    }

    /// Shows the attributes of the entry at `offset` (from the unit's first byte) to `visit`, and says whether there
    /// is one.
    pub(super) fn entry(
        &self,
        sections: &Sections,
        offset: u64,
        work: &Work,
        mut visit: impl FnMut(DwAt, Value<'_>),
    ) -> Result<bool, Reason> {
        let start = self
            .place
            .offset
            .checked_add(offset)
            .ok_or(Reason::DebuginfoDamaged)?;
        if offset < self.entries || start >= self.place.end {
            return Err(Reason::DebuginfoDamaged);
        }
        let mut read = 0;
        let result = sections.info.parse(start, ENTRY, |bytes| {
            read = bytes.len() as u64;
            // All attributes are read before one is shown: reading may begin again with more bytes.
            let mut entries =
                EntriesRaw::new(bytes, self.encoding, &self.abbreviations, UnitOffset(0));
            let Some(abbreviation) = entries.read_abbreviation()? else {
                return Ok(false);
            };
            let mut attributes = Vec::new();
            entries.read_attributes(abbreviation.attributes(), &mut attributes)?;
            for attribute in attributes {
                visit(attribute.name(), attribute.value());
            }
            Ok(true)
        });
        work.spend(read)?;
        result
    }

    /// The bytes of a string attribute; `None` for what is no string or is in another file.
    pub(super) fn string(&self, sections: &Sections, value: &Value<'_>) -> Option<Vec<u8>> {
        let bytes = match value {
            AttributeValue::String(bytes) => Cow::Borrowed(bytes.slice()),
            AttributeValue::DebugStrRef(offset) => sections.str.string(offset.0 as u64).ok()?,
            AttributeValue::DebugLineStrRef(offset) => {
                sections.line_str.string(offset.0 as u64).ok()?
            }
            AttributeValue::DebugStrOffsetsIndex(index) => {
                let size = u64::from(self.encoding.format.word_size());
                let place = (index.0 as u64)
                    .checked_mul(size)?
                    .checked_add(self.string_offsets)?;
                let bytes = sections.str_offsets.read(place, size).ok()?;
                let offset = EndianSlice::new(&bytes, LittleEndian)
                    .read_offset(self.encoding.format)
                    .ok()?;
                sections.str.string(offset as u64).ok()?
            }
            _ => return None,
        };
        Some(bytes.into_owned())
    }

    /// The address that an attribute has.
    pub(super) fn address(&self, sections: &Sections, value: &Value<'_>) -> Option<u64> {
        match value {
            AttributeValue::Addr(address) => Some(*address),
            AttributeValue::DebugAddrIndex(index) => {
                let size = u64::from(self.encoding.address_size);
                let place = (index.0 as u64)
                    .checked_mul(size)?
                    .checked_add(self.addresses)?;
                let bytes = sections.addr.read(place, size).ok()?;
                EndianSlice::new(&bytes, LittleEndian)
                    .read_address(self.encoding.address_size)
                    .ok()
            }
            _ => None,
        }
    }

    /// Where a range list is, by the attribute that refers to it.
    fn range_list(&self, sections: &Sections, value: &Value<'_>) -> Option<u64> {
        match value {
            // GNU's split DWARF 4 counts from its own base, which is for split units only: they are not read here.
            AttributeValue::RangeListsRef(offset) => Some(offset.0 as u64),
            AttributeValue::SecOffset(offset) => Some(*offset as u64),
            AttributeValue::DebugRngListsIndex(index) => {
                let size = u64::from(self.encoding.format.word_size());
                let place = (index.0 as u64)
                    .checked_mul(size)?
                    .checked_add(self.range_lists)?;
                let bytes = sections.rnglists.read(place, size).ok()?;
                let offset = EndianSlice::new(&bytes, LittleEndian)
                    .read_offset(self.encoding.format)
                    .ok()?;
                (offset as u64).checked_add(self.range_lists)
            }
            _ => None,
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        ABBREVIATIONS_BYTES.saturating_add(size_of_val(self.ranges.as_slice()))
    }
}

/// What the first look at a root entry gathers.
#[derive(Default)]
struct Root {
    string_offsets: Option<u64>,
    addresses: Option<u64>,
    range_lists: Option<u64>,
    line_program: Option<u64>,
    language: Option<gimli::DwLang>,
}

/// The attributes of an entry that say which addresses it covers (DWARF 5, 2.17).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PcAttributes {
    pub low: Option<u64>,
    high: Option<High>,
    list: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum High {
    Address(u64),
    Size(u64),
}

impl PcAttributes {
    /// Takes the attribute if it is one of them.
    #[inline]
    pub(super) fn take(&mut self, name: DwAt, value: Value<'_>, unit: &Unit, sections: &Sections) {
        match name {
            constants::DW_AT_low_pc => self.low = unit.address(sections, &value),
            constants::DW_AT_high_pc => {
                self.high = unit
                    .address(sections, &value)
                    .map(High::Address)
                    .or_else(|| value.udata_value().map(High::Size));
            }
            constants::DW_AT_ranges => self.list = unit.range_list(sections, &value),
            _ => {}
        }
    }

    /// Shows the ranges to `visit`; empty ones are left out.
    pub(super) fn ranges(
        &self,
        unit: &Unit,
        sections: &Sections,
        work: &Work,
        mut visit: impl FnMut(u64, u64),
    ) -> Result<(), Reason> {
        if let Some(list) = self.list {
            return list_ranges(unit, sections, list, work, visit);
        }
        if let (Some(low), Some(high)) = (self.low, self.high) {
            let end = match high {
                High::Address(end) => end,
                High::Size(size) => low.saturating_add(size),
            };
            if low < end {
                visit(low, end);
            }
        }
        Ok(())
    }
}

fn list_ranges(
    unit: &Unit,
    sections: &Sections,
    list: u64,
    work: &Work,
    mut visit: impl FnMut(u64, u64),
) -> Result<(), Reason> {
    let section = match unit.encoding.version {
        ..=4 => &sections.ranges,
        _ => &sections.rnglists,
    };
    let addresses = sections.addr.len();
    // The whole of .debug_addr is needed as a slice; it is read at once where it is small.
    let addresses = match unit.encoding.version {
        5.. if addresses > 0 => sections.addr.read(0, addresses)?,
        _ => Cow::Borrowed(&[][..]),
    };
    if !addresses.is_empty() && !sections.addr.is_in_memory() {
        work.spend(addresses.len() as u64)?;
    }
    let mut found = Vec::new();
    let mut read = 0;
    let result = section.parse(list, RANGES, |bytes| {
        found.clear();
        read = bytes.len() as u64;
        let lists = RangeLists::new(DebugRanges::from(bytes), DebugRngLists::from(bytes));
        let mut ranges = lists.ranges(
            RangeListsOffset(0),
            unit.encoding,
            unit.low_pc,
            &DebugAddr::from(EndianSlice::new(&addresses, LittleEndian)),
            DebugAddrBase(usize::try_from(unit.addresses).unwrap_or(usize::MAX)),
        )?;
        while let Some(range) = ranges.next()? {
            if found.len() >= MAX_RANGES {
                break;
            }
            found.push((range.begin, range.end));
        }
        Ok(())
    });
    work.spend((found.len() as u64).saturating_mul(16))?;
    // What is read at first costs about nothing; what had to be read because a list goes on and on does.
    work.spend(read.saturating_sub(RANGES))?;
    result?;
    for (begin, end) in found {
        if begin < end {
            visit(begin, end);
        }
    }
    Ok(())
}

fn read_abbreviations(
    sections: &Sections,
    offset: u64,
    work: &Work,
) -> Result<Abbreviations, Reason> {
    let mut read = 0;
    let result = sections.abbrev.parse(offset, ABBREVIATIONS, |bytes| {
        read = bytes.len() as u64;
        DebugAbbrev::from(bytes).abbreviations(DebugAbbrevOffset(0))
    });
    work.spend(ABBREVIATIONS / 4)?;
    work.spend(read.saturating_sub(ABBREVIATIONS))?;
    result
}

/// Where a contribution to an index section starts when the unit does not say: behind the first one's header.
fn default_base(encoding: Encoding, dwarf32: u64) -> u64 {
    match (encoding.version, encoding.format) {
        (..=4, _) => 0,
        (_, Format::Dwarf32) => dwarf32,
        (_, Format::Dwarf64) => dwarf32.saturating_add(8),
    }
}

/// The section offset that an attribute has.
pub(super) fn offset_of(value: &Value<'_>) -> Option<u64> {
    Some(match value {
        AttributeValue::SecOffset(offset) => *offset as u64,
        AttributeValue::DebugLineRef(offset) => offset.0 as u64,
        AttributeValue::DebugStrOffsetsBase(base) => base.0 as u64,
        AttributeValue::DebugAddrBase(base) => base.0 as u64,
        AttributeValue::DebugRngListsBase(base) => base.0 as u64,
        AttributeValue::RangeListsRef(offset) => offset.0 as u64,
        _ => return None,
    })
}
