//! The HTTP/1.1 subset the viewer speaks: bounded requests in, whole responses out. No sockets, no routes.

pub(crate) mod connection;
pub(crate) mod host;
pub(crate) mod request;
pub(crate) mod response;

pub(crate) use host::AllowedHosts;
pub(crate) use request::Request;
pub(crate) use response::{Response, Status};
