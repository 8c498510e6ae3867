//! A site's authority, and whom it names.

use std::net::SocketAddr;
use std::sync::Arc;

use picket_agent::identity::Identity;
use picket_common::certificate::{Role, uri};
use picket_common::secret::Secret;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;

pub struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key, as the aggregator makes them.
    fn card(&self, role: &Role) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = uri(&"s1".parse().unwrap(), role);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        let server = matches!(role, Role::Witness(_));
        let usage = if server { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth };
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn identity(&self, role: &Role) -> Identity {
        let (certificate, key) = self.card(role);
        Identity {
            agent: "r1".parse().unwrap(),
            mqtt: "127.0.0.1:1".into(),
            certificate,
            private_key: Secret::new(key),
            ca: self.pem.clone(),
            verifying_keys: Vec::new(),
            sealing_key: Secret::new([0; 32]),
        }
    }

    pub fn agent(&self, name: &str) -> Identity {
        self.identity(&Role::Agent(name.parse().unwrap()))
    }

    pub fn witness(&self, host: &str) -> Identity {
        self.identity(&Role::Witness(host.parse().unwrap()))
    }

    pub fn consumer(&self) -> Identity {
        self.identity(&Role::Consumer("grafana".parse().unwrap()))
    }

    /// One who trusts this site, with a certificate of another.
    pub fn stranger(&self) -> Identity {
        Identity { ca: self.pem.clone(), ..Self::new().agent("r1") }
    }

    /// A web server with a certificate of nobody's that anybody knows.
    pub fn https_server(&self, handle: &Handle) -> SocketAddr {
        let (certificate, key) = self.card(&Role::Consumer("web".parse().unwrap()));
        let chain = picket_agent::tls::certificates(&certificate, "test").unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap()));
        let listener = handle.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let at = listener.local_addr().unwrap();
        handle.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut asked = [0; 1024];
                assert!(stream.read(&mut asked).await.unwrap() > 0, "nothing was asked");
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                stream.shutdown().await.ok();
            }
        });
        at
    }
}
