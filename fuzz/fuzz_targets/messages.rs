//! What a peer sends: the header of a message, then the body of any message of any channel. What is understood is
//! written again to the same bytes.
#![no_main]

use ipc_proto::codec::Wire;
use ipc_proto::header::{Header, Message};
use ipc_proto::{debuginfo, hello, opener, sample, statistics, symbolized};
use libfuzzer_sys::fuzz_target;

fn read<M: Message>(number: u16, body: &[u8]) {
    if let Ok(message) = M::decode_body(number, body) {
        assert_eq!(message.number(), number);
        assert_eq!(message.encode_body(), body);
    }
}

fuzz_target!(|data: &[u8]| {
    let _header = Header::from_bytes(data);
    let _hello = hello::Hello::from_bytes(data);
    let Some((&number, body)) = data.split_first() else {
        return;
    };
    let number = number.into();
    read::<sample::SamplerMessage>(number, body);
    read::<sample::SymbolizerMessage>(number, body);
    read::<opener::OpenerRequest>(number, body);
    read::<opener::OpenerReply>(number, body);
    read::<symbolized::SymbolizedMessage>(number, body);
    read::<symbolized::ShipperMessage>(number, body);
    read::<debuginfo::OfferMessage>(number, body);
    read::<debuginfo::VerdictMessage>(number, body);
    read::<statistics::StatisticsMessage>(number, body);
});
