//! What Leadsman's processes say to each other. No I/O, no clock, no `unsafe`.
//!
//! | channel (socket)   | listens            | connects            | ->                                | <-                                |
//! |--------------------|--------------------|---------------------|-----------------------------------|-----------------------------------|
//! | `samples.sock`     | symbolizer         | sampler             | [`sample::SamplerMessage`]        | [`sample::SymbolizerMessage`]     |
//! | `opener.sock`      | opener             | sampler, symbolizer | [`opener::OpenerRequest`]         | [`opener::OpenerReply`] + fd      |
//! | `symbolized.sock`  | shipper            | symbolizer          | [`symbolized::SymbolizedMessage`] | [`symbolized::ShipperMessage`]    |
//! | `debuginfo.sock`   | debuginfo-uploader | symbolizer          | [`debuginfo::DebuginfoOffer`] + fd| [`debuginfo::VerdictMessage`]     |
//! | `settings.sock`    | shipper            | all others          | -                                 | [`settings::SettingsMessage`]     |
//! | `statistics.sock`  | viewer (or front)  | all                 | [`statistics::Statistics`]        | -                                 |
//!
//! Each message is one SOCK_SEQPACKET datagram: [`header::Header`], then a body encoded by [`codec`]. The first message on
//! a link, in both directions, is [`hello::Hello`].
#![forbid(unsafe_code)]

pub mod codec;
pub mod debuginfo;
pub mod header;
pub mod hello;
pub mod ids;
pub mod limits;
pub mod opener;
pub mod sample;
pub mod settings;
pub mod statistics;
pub mod symbolized;
pub mod table_file;
