//! A file on its way to the store, one buffer at a time: as messages of a gRPC call, or as the body of an HTTP request.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use remote_store::generated::debuginfo::upload_request::Data;
use remote_store::generated::debuginfo::{UploadInfo, UploadRequest};
use tokio::sync::Notify;
use tokio_stream::Stream;

/// Bytes read at a time. Neither gRPC nor HTTP keeps more than one or two on their way.
const CHUNK: u64 = 128 << 10;

/// The rest of a file.
#[derive(Debug)]
pub(crate) struct Chunks {
    file: File,
    offset: u64,
    size: u64,
    broken: Arc<Notify>,
}

impl Chunks {
    /// All of the file's `size` bytes.
    pub(crate) fn new(file: File, size: u64) -> Self {
        Self {
            file,
            offset: 0,
            size,
            broken: Arc::default(),
        }
    }

    /// Rung when a chunk can't be read. Nothing comes after that, not even the end.
    pub(crate) fn broken(&self) -> Arc<Notify> {
        Arc::clone(&self.broken)
    }

    /// The next chunk; nothing at the end.
    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        let length = CHUNK.min(self.size - self.offset);
        if length == 0 {
            return None;
        }
        let mut bytes = vec![0; length as usize];
        let read = self.file.read_exact_at(&mut bytes, self.offset);
        self.offset += length;
        Some(read.map(|()| bytes))
    }

    /// The messages of the call `Upload`: what it is, then its bytes.
    pub(crate) fn requests(self, info: UploadInfo) -> Requests {
        Requests {
            info: Some(info),
            chunks: self,
        }
    }
}

/// See [`Chunks::requests`].
#[derive(Debug)]
pub(crate) struct Requests {
    info: Option<UploadInfo>,
    chunks: Chunks,
}

impl Stream for Requests {
    type Item = UploadRequest;

    fn poll_next(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<UploadRequest>> {
        let this = self.get_mut();
        let message = |data| UploadRequest { data: Some(data) };
        if let Some(info) = this.info.take() {
            return Poll::Ready(Some(message(Data::Info(info))));
        }
        match this.chunks.next() {
            None => Poll::Ready(None),
            Some(Ok(bytes)) => Poll::Ready(Some(message(Data::ChunkData(bytes.into())))),
            Some(Err(_cut)) => {
                this.chunks.broken.notify_one();
                Poll::Pending
            }
        }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = self.get_mut().next();
        Poll::Ready(chunk.map(|bytes| bytes.map(|bytes| Frame::data(bytes.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.offset == self.size
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size - self.offset)
    }
}
