//! Messages, clients and servers made from `proto/` by `cargo xtask generate-protos`: the stand-in's own, so that it shares
//! no code with what it judges. Nothing here is written by hand.
#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    clippy::wildcard_imports,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code keeps the generator's style"
)]

/// Parca: profiles.
pub mod profilestore {
    include!("generated/parca.profilestore.v1alpha1.rs");
}

/// Parca: debug information.
pub mod debuginfo {
    include!("generated/parca.debuginfo.v1alpha1.rs");
}

/// Parca: questions.
pub mod query {
    include!("generated/parca.query.v1alpha1.rs");
}

/// pprof: what profiles are inside.
pub mod pprof {
    include!("generated/perftools.profiles.rs");
}

/// Pyroscope: profiles.
pub mod pyroscope {
    include!("generated/push.v1.rs");
}
