//! The messages of `proto/profile.proto` (package `perftools.profiles`) as prost sees them. Field names and numbers are
//! that file's, which a test holds them to; what the fields mean stands there. Only the builder may make one by hand.

/// A profile.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Profile {
    /// What each of a sample's values is.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// Counted stacks.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// Mappings that locations refer to.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// Locations that samples refer to.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions that locations refer to.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// Strings; the first is "".
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// Regular expression of functions to leave out: a string's index.
    #[prost(int64, tag = "7")]
    pub drop_frames: i64,
    /// Regular expression of functions to keep nevertheless: a string's index.
    #[prost(int64, tag = "8")]
    pub keep_frames: i64,
    /// Start, nanoseconds since 1970 UTC.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// Length, nanoseconds.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What lies between two samples.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// How much of it.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Remarks for people: indexes of strings.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// The type of value to show first: a string's index.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
    /// Where this kind of profile is explained: a string's index.
    #[prost(int64, tag = "15")]
    pub doc_url: i64,
}

/// Meaning and unit of a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct ValueType {
    /// Meaning, as `cpu`: a string's index.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Unit, as `nanoseconds`: a string's index.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// Values of equal stacks under equal labels.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Sample {
    /// Ids of locations, leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One value for each of the profile's sample types.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// Labels.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A label: text or a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Label {
    /// Its name: a string's index.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Its text: a string's index; 0 when it is a number.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// Its number.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// The number's unit: a string's index.
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// A mapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Mapping {
    /// Not 0, and no other mapping's.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// First address behind it.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// File offset of its first address.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// Path, or a name like `[vdso]`: a string's index.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Build ID in hexadecimal: a string's index.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// Whether its locations have functions.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// Whether its functions have source files.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Whether its lines have numbers.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Whether its locations show inlined functions.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// A place in code.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Location {
    /// Not 0, and no other location's.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its mapping's id, or 0.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// Address, or 0.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Functions at this place, innermost first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
    /// Whether other functions share this code.
    #[prost(bool, tag = "5")]
    pub is_folded: bool,
}

/// A function at a location.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Line {
    /// The function's id.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// Source line, or 0.
    #[prost(int64, tag = "2")]
    pub line: i64,
    /// Source column, or 0.
    #[prost(int64, tag = "3")]
    pub column: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Function {
    /// Not 0, and no other function's.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Name for people: a string's index.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Name in the executable's symbol table: a string's index.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Source file: a string's index.
    #[prost(int64, tag = "4")]
    pub filename: i64,
    /// Line at which it begins, or 0.
    #[prost(int64, tag = "5")]
    pub start_line: i64,
}

#[cfg(test)]
mod tests;
