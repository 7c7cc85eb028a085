//! Who is trusted and who this client is: a rustls configuration from PEM files, which are read again when they change. The
//! system's authorities are read once, before the lockdown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;

use crate::settings::Settings;
use crate::watched::Watched;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read or is no PEM.
    #[error("cannot read {path}: {error}", path = .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: rustls::pki_types::pem::Error,
    },
    /// A file without a certificate.
    #[error("{path} holds no certificate", path = .0.display())]
    NoCertificate(PathBuf),
    /// The system trusts nobody.
    #[error(
        "no trusted certificate authorities found ({0}): install the package ca-certificates, or name a file with --remote-store-ca-file"
    )]
    NoRoots(String),
    /// Certificate and key don't belong together, or an authority is malformed.
    #[error("{what}: {error}")]
    Configuration {
        /// What of it.
        what: String,
        /// What is wrong.
        error: rustls::Error,
    },
}

/// The configuration that settings ask for, as new as the files that they name.
#[derive(Debug)]
pub(crate) struct Tls {
    settings: Settings,
    /// Those of the system, where no file names others.
    system: Option<Arc<RootCertStore>>,
    watched: Watched,
    configuration: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn new(settings: &Settings) -> Result<Self, TlsError> {
        let watched = Watched::new(settings.tls_files().cloned().collect());
        let believes_anybody = settings.insecure_skip_verify;
        let system = match &settings.ca_file {
            None if !believes_anybody => Some(Arc::new(roots(None)?)),
            _ => None,
        };
        Ok(Self {
            settings: settings.clone(),
            configuration: Arc::new(configuration(settings, system.clone())?),
            system,
            watched,
        })
    }

    /// For a new connection.
    pub(crate) fn configuration(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.configuration)
    }

    /// Reads the files again if they changed, and says whether the configuration is another one now. While they can't be
    /// read, or don't fit each other, the last ones stand.
    pub(crate) fn refresh(&mut self) -> bool {
        let Some(look) = self.watched.changed() else {
            return false;
        };
        match configuration(&self.settings, self.system.clone()) {
            Ok(new) => {
                self.watched.taken(look);
                self.configuration = Arc::new(new);
                true
            }
            Err(error) => {
                self.watched.failed(&error);
                false
            }
        }
    }
}

fn configuration(
    settings: &Settings,
    system: Option<Arc<RootCertStore>>,
) -> Result<ClientConfig, TlsError> {
    let builder = builder(settings, || match system {
        Some(system) => Ok(system),
        None => roots(settings.ca_file.as_deref()).map(Arc::new),
    })?;
    let mut configuration = match (&settings.client_certificate, &settings.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
            let what = format!("{} with {}", certificate.display(), key.display());
            builder
                .with_client_auth_cert(chain, private)
                .map_err(wrong(&what))?
        }
        _ => builder.with_no_client_auth(),
    };
    // gRPC is HTTP/2 and nothing else.
    configuration.alpn_protocols = vec![b"h2".to_vec()];
    Ok(configuration)
}

/// For the URLs that the store names: object storages, which are other machines than the store. The system's authorities
/// are trusted as well as the store's own; no client certificate is shown.
///
/// # Errors
/// [`TlsError`].
pub fn https(settings: &Settings) -> Result<ClientConfig, TlsError> {
    let builder = builder(settings, || {
        let own = settings.ca_file.as_deref().map(|path| roots(Some(path)));
        let own = own.transpose()?;
        let all = match (roots(None), own) {
            (Ok(mut all), own) => {
                all.extend(own.unwrap_or_else(RootCertStore::empty).roots);
                Ok(all)
            }
            (Err(_none), Some(own)) => Ok(own),
            (Err(none), None) => Err(none),
        };
        all.map(Arc::new)
    })?;
    let mut configuration = builder.with_no_client_auth();
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}

fn builder(
    settings: &Settings,
    roots: impl FnOnce() -> Result<Arc<RootCertStore>, TlsError>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(wrong("TLS"))?;
    Ok(if settings.insecure_skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots()?)
    })
}

fn wrong(what: &str) -> impl Fn(rustls::Error) -> TlsError + use<> {
    let what = what.to_owned();
    move |error| TlsError::Configuration {
        what: what.clone(),
        error,
    }
}

fn pem(path: &Path) -> impl Fn(rustls::pki_types::pem::Error) -> TlsError {
    move |error| TlsError::Pem {
        path: path.to_owned(),
        error,
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(pem(path))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(pem(path))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| TlsError::Configuration {
                    what: path.display().to_string(),
                    error,
                })?;
        }
        return Ok(roots);
    }
    let system = rustls_native_certs::load_native_certs();
    // Systems carry certificates that only some libraries understand; the rest is as good.
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        let errors: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots(errors.join("; ")));
    }
    Ok(roots)
}

/// `--remote-store-insecure-skip-verify`: believes any certificate, but only with a signature that fits it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
