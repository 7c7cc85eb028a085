//! containerd's API over its socket, by gRPC: containers of all namespaces, then events. What the kubelet, nerdctl and
//! Docker make of it stands in the containers' labels.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message as _;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower::service_fn;

use super::generated::containers::containers_client::ContainersClient;
use super::generated::containers::{Container, GetContainerRequest, ListContainersRequest};
use super::generated::events::events_client::EventsClient;
use super::generated::events::{ContainerEvent, Envelope, SubscribeRequest};
use super::generated::namespaces::ListNamespacesRequest;
use super::generated::namespaces::namespaces_client::NamespacesClient;
use super::{Containers, Engine, Named, PATIENCE, RuntimeContainer, SILENCE};

/// In which namespace a call is meant (containerd/pkg/namespaces).
const NAMESPACE: &str = "containerd-namespace";
/// Events that name a container, in containerd's filter language.
const TOPICS: &str = r#"topic~="/containers/(create|update)""#;
/// Namespaces asked for their containers.
const MAX_NAMESPACES: usize = 256;

/// Why containerd named nothing.
#[derive(Debug, Error)]
pub(super) enum ContainerdError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("it answered {:?}: {}", .0.code(), .0.message())]
    Status(#[from] Status),
    #[error("it did not answer within {0:?}")]
    Late(Duration),
    #[error("its namespace {0:?} can't be asked for: {1}")]
    Namespace(String, InvalidMetadataValue),
    #[error("its event is malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// Takes all containers there are, calls `named`, then takes those that events tell of, until the connection ends or
/// nothing happened for long.
///
/// # Errors
/// It is not containerd, or not to be reached.
pub(super) fn follow(
    socket: &Path,
    containers: &Containers,
    named: &mut dyn FnMut(),
) -> Result<(), ContainerdError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = socket.to_owned();
        let connector = service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The name is only said, never looked up.
        let endpoint = Endpoint::from_static("http://containerd");
        let channel = endpoint.connect_with_connector(connector);
        let channel = in_time(async { Ok::<_, ContainerdError>(channel.await?) }).await?;
        Session {
            channel,
            containers,
        }
        .run(named)
        .await
    })
}

async fn in_time<T, E>(call: impl Future<Output = Result<T, E>>) -> Result<T, ContainerdError>
where
    ContainerdError: From<E>,
{
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ContainerdError::Late(PATIENCE)),
    }
}

/// One connection.
struct Session<'a> {
    channel: Channel,
    containers: &'a Containers,
}

impl Session<'_> {
    async fn run(&self, named: &mut dyn FnMut()) -> Result<(), ContainerdError> {
        // Before the list: what is made during it comes as an event.
        let filters = vec![TOPICS.to_owned()];
        let mut client = EventsClient::new(self.channel.clone());
        let events = in_time(client.subscribe(SubscribeRequest { filters })).await?;
        let mut events = events.into_inner();
        self.list_all().await?;
        named();
        loop {
            match tokio::time::timeout(SILENCE, events.message()).await {
                Ok(Ok(Some(event))) => self.take(event).await?,
                Ok(Ok(None)) | Err(_) => return Ok(()),
                Ok(Err(status)) => return Err(status.into()),
            }
        }
    }

    async fn list_all(&self) -> Result<(), ContainerdError> {
        let mut client = NamespacesClient::new(self.channel.clone());
        let listed = in_time(client.list(ListNamespacesRequest::default())).await?;
        let namespaces = listed.into_inner().namespaces.into_iter();
        for namespace in namespaces.take(MAX_NAMESPACES) {
            self.list(&namespace.name).await?;
        }
        Ok(())
    }

    async fn list(&self, namespace: &str) -> Result<(), ContainerdError> {
        let mut client = ContainersClient::new(self.channel.clone());
        let request = within(namespace, ListContainersRequest::default())?;
        let mut listed = in_time(client.list_stream(request)).await?.into_inner();
        while let Some(message) = in_time(listed.message()).await? {
            if let Some(container) = message.container {
                self.insert(namespace, container);
            }
        }
        Ok(())
    }

    /// Events have no labels: they are asked for, and a container that is gone by then has its image at least.
    async fn take(&self, event: Envelope) -> Result<(), ContainerdError> {
        let Some(payload) = event.event else {
            return Ok(());
        };
        let said = ContainerEvent::decode(payload.value)?;
        let mut client = ContainersClient::new(self.channel.clone());
        let id = said.id.clone();
        let request = within(&event.namespace, GetContainerRequest { id })?;
        let container = match in_time(client.get(request)).await {
            Ok(found) => found.into_inner().container,
            Err(ContainerdError::Status(status)) if status.code() == Code::NotFound => None,
            Err(error) => return Err(error),
        };
        let container = container.unwrap_or(Container {
            id: said.id,
            image: said.image,
            ..Container::default()
        });
        self.insert(&event.namespace, container);
        Ok(())
    }

    fn insert(&self, namespace: &str, container: Container) {
        self.containers.insert(RuntimeContainer::new(
            Engine::Containerd,
            Named {
                // Without Kubernetes and nerdctl the IDs are the names that people gave.
                name: match is_hexadecimal(&container.id) {
                    true => String::new(),
                    false => container.id.clone(),
                },
                id: container.id,
                image: container.image,
                namespace: namespace.to_owned(),
            },
            container.labels.into_iter(),
        ));
    }
}

/// A request about one namespace.
fn within<M>(namespace: &str, message: M) -> Result<Request<M>, ContainerdError> {
    let value: MetadataValue<Ascii> = namespace
        .parse()
        .map_err(|error| ContainerdError::Namespace(namespace.to_owned(), error))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert(NAMESPACE, value);
    Ok(request)
}

fn is_hexadecimal(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}
