//! Object storage that takes a file by HTTP PUT to a signed URL, as strict as the real ones: known length, nothing but the
//! signature to identify oneself by, each URL for a while.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::services::Shared;
use super::uploads::Key;

#[derive(Debug, Clone)]
struct Signed {
    key: Key,
    upload_id: String,
    size: i64,
}

#[derive(Debug, Default)]
struct State {
    urls: HashMap<String, Signed>,
    /// The next PUTs get these answers.
    refusals: Vec<u16>,
    /// What was wrong with requests.
    faults: Vec<String>,
    puts: u64,
}

/// The storage's address and its URLs; clones see the same.
#[derive(Debug, Clone)]
pub struct SignedUrls {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl SignedUrls {
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL for one upload.
    #[must_use]
    pub fn sign(&self, key: &Key, upload_id: &str, size: i64) -> String {
        let target = format!(
            "/bucket/{}/debuginfo?signature={upload_id}%2B",
            key.build_id
        );
        self.state().urls.insert(
            target.clone(),
            Signed {
                key: key.clone(),
                upload_id: upload_id.to_owned(),
                size,
            },
        );
        format!("http://{}{target}", self.address)
    }

    /// The next PUT gets this HTTP status.
    pub fn refuse_once(&self, status: u16) {
        self.state().refusals.push(status);
    }

    /// PUTs so far.
    #[must_use]
    pub fn puts(&self) -> u64 {
        self.state().puts
    }

    /// What real storage would have refused.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    /// Serves for as long as the runtime lives.
    pub async fn serve(self, listener: std::net::TcpListener, shared: Shared) {
        let Ok(listener) = TcpListener::from_std(listener) else {
            return;
        };
        while let Ok((stream, _)) = listener.accept().await {
            let (storage, shared) = (self.clone(), shared.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let (storage, shared) = (storage.clone(), shared.clone());
                    async move { Ok::<_, Infallible>(storage.answer(request, &shared).await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
        let status = match self.put(request, shared).await {
            Ok(()) => StatusCode::OK,
            Err((status, fault)) => {
                self.state().faults.push(format!("{status}: {fault}"));
                status
            }
        };
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = status;
        response
    }

    async fn put(
        &self,
        request: Request<Incoming>,
        shared: &Shared,
    ) -> Result<(), (StatusCode, String)> {
        let refusal = {
            let mut state = self.state();
            state.puts += 1;
            state.refusals.pop()
        };
        let bad = |text: String| (StatusCode::BAD_REQUEST, text);
        if request.method() != Method::PUT {
            return Err((StatusCode::METHOD_NOT_ALLOWED, request.method().to_string()));
        }
        let target = request
            .uri()
            .path_and_query()
            .map_or("", |target| target.as_str())
            .to_owned();
        let signed = self.state().urls.get(&target).cloned();
        let Some(signed) = signed else {
            return Err((StatusCode::FORBIDDEN, format!("{target} is not signed")));
        };
        if request.headers().contains_key("authorization") {
            // Two ways to identify oneself; and a token for somebody else.
            return Err(bad(
                "an authorization header beside the signature".to_owned()
            ));
        }
        let length = request
            .headers()
            .get("content-length")
            .and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
        match length {
            None => {
                return Err((StatusCode::LENGTH_REQUIRED, "no content-length".to_owned()));
            }
            Some(length) if length != signed.size => {
                return Err(bad(format!(
                    "content-length {length}, {} were announced",
                    signed.size
                )));
            }
            Some(_) => {}
        }
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(|error| bad(error.to_string()))?
            .to_bytes();
        if let Some(status) = refusal {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            // Asked for: no fault of the sender's.
            return if status.is_success() {
                Ok(())
            } else {
                Err((status, "on demand".to_owned()))
            };
        }
        shared
            .store()
            .uploads
            .receive(&signed.key, &signed.upload_id, body.to_vec())
            .map_err(|refusal| (StatusCode::FORBIDDEN, refusal.message))
    }
}
