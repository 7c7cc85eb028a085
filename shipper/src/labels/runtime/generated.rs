//! Messages and clients made from `proto/` by `cargo xtask generate-protos`. Nothing here is written by hand.
#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code keeps the generator's style"
)]

/// containerd: containers.
pub mod containers {
    include!("generated/containerd.services.containers.v1.rs");
}

/// containerd: events.
pub mod events {
    include!("generated/containerd.services.events.v1.rs");
}

/// containerd: namespaces.
pub mod namespaces {
    include!("generated/containerd.services.namespaces.v1.rs");
}
