//! The kernel side: loading, attaching, and the only code that writes its maps.

pub(crate) mod accounts;
pub(crate) mod btf;
pub(crate) mod installed;
pub(crate) mod load;
pub(crate) mod mappings;
pub(crate) mod run_time;
pub(crate) mod tables;
