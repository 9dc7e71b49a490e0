//! Makes the certificates of a cluster: its authority, one certificate a node for peers (`<cluster>.trebol`, both
//! directions of TLS, RFC 5280 §4.2.1.12), one for clients of the FTP side. Files that exist are kept, so that a cluster
//! keeps its identity between runs; keys are readable by their owner only. Never used by `serve`, which only reads.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How long certificates are valid, in years.
const YEARS: i32 = 10;

/// The authority of one cluster, with its key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
}

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
}

/// Why certificates could not be made. Files that were there are as before.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A new authority would part the cluster from all it has issued.
    #[error(
        "{certificate} is there and its key {key} is not: put the key back, or remove all certificates in that directory \
         to begin anew"
    )]
    KeyMissing {
        /// Of the authority.
        certificate: PathBuf,
        /// Where its key should be.
        key: PathBuf,
    },
    /// A certificate could not be made, or the authority's files are damaged.
    #[error("certificate {path}: {error}")]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        error: rcgen::Error,
    },
}

impl Authority {
    /// Takes the authority in `dir` (`ca.pem`, `ca.key`), or makes one there for `cluster`. Never replaces a certificate.
    pub fn open(dir: &Path, cluster: &str) -> Result<Self, PkiError> {
        fs::create_dir_all(dir).map_err(|error| PkiError::Io { path: dir.to_owned(), error })?;
        let files = Issued { certificate: dir.join("ca.pem"), key: dir.join("ca.key") };
        if files.certificate.exists() && !files.key.exists() {
            return Err(PkiError::KeyMissing { certificate: files.certificate, key: files.key });
        }
        let wrong = |error| PkiError::Certificate { path: files.certificate.clone(), error };
        let mut params = named(&format!("{cluster} cluster authority"), vec![]).map_err(wrong)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        if !files.exist() {
            let key = KeyPair::generate().map_err(wrong)?;
            let certificate = params.self_signed(&key).map_err(wrong)?;
            files.write(&certificate.pem(), &key)?;
        }
        let key = KeyPair::from_pem(&read(&files.key)?).map_err(wrong)?;
        // An issuer is its name and its key: those of the certificate that was kept.
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, dir: dir.to_owned() })
    }
    /// The certificate that clients and peers verify with.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }
    /// The certificate with which the node `name` speaks to its peers, in both directions.
    pub fn peer(&self, name: &str, cluster: &str) -> Result<Issued, PkiError> {
        let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&format!("{name}-peer"), vec![format!("{cluster}.trebol")], both)
    }
    /// The certificate for FTP clients on this machine.
    pub fn ftp_on_loopback(&self) -> Result<Issued, PkiError> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        self.issue("ftp", names, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }
    /// The certificate for FTP clients that reach nodes under `names`, DNS names and addresses: `<stem>.pem`, `<stem>.key`,
    /// and in `<stem>.names` what it was issued for. Other names than those are another certificate.
    pub fn ftp(&self, stem: &str, names: &[String]) -> Result<Issued, PkiError> {
        let (list, text) = (self.dir.join(format!("{stem}.names")), names.join("\n"));
        let files = self.files(stem);
        if !fs::read_to_string(&list).is_ok_and(|kept| kept == text) {
            // Without its certificate a key is replaced together with it.
            match fs::remove_file(&files.certificate) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(PkiError::Io { path: files.certificate, error });
                }
                _ => {}
            }
        }
        let issued = self.issue(stem, names.to_vec(), vec![ExtendedKeyUsagePurpose::ServerAuth])?;
        write(&list, &text, 0o644)?;
        Ok(issued)
    }
    fn files(&self, stem: &str) -> Issued {
        Issued { certificate: self.dir.join(format!("{stem}.pem")), key: self.dir.join(format!("{stem}.key")) }
    }
    fn issue(&self, stem: &str, names: Vec<String>, usages: Vec<ExtendedKeyUsagePurpose>) -> Result<Issued, PkiError> {
        let files = self.files(stem);
        let wrong = |error| PkiError::Certificate { path: files.certificate.clone(), error };
        if !files.exist() {
            let key = KeyPair::generate().map_err(wrong)?;
            let mut params = named(stem, names).map_err(wrong)?;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = usages;
            params.use_authority_key_identifier_extension = true;
            let certificate = params.signed_by(&key, &self.issuer).map_err(wrong)?;
            files.write(&certificate.pem(), &key)?;
        }
        Ok(files)
    }
}

impl Issued {
    fn exist(&self) -> bool {
        self.certificate.exists() && self.key.exists()
    }
    /// The key first: a certificate without its key would be kept for ever.
    fn write(&self, certificate: &str, key: &KeyPair) -> Result<(), PkiError> {
        write(&self.key, &key.serialize_pem(), 0o600)?;
        write(&self.certificate, certificate, 0o644)
    }
}

fn named(common_name: &str, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let this_year = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year());
    // From the start of last year: clocks of nodes differ, at New Year too.
    params.not_before = date_time_ymd(this_year - 1, 1, 1);
    params.not_after = date_time_ymd(this_year + YEARS, 1, 1);
    Ok(params)
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|error| PkiError::Io { path: path.to_owned(), error })
}

/// Whole or not at all: written under another name, then renamed.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let draft = path.with_extension("new");
    let attempt = || {
        let _ = fs::remove_file(&draft);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    attempt().map_err(|error| PkiError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{PeerTls, Pem};
    use std::os::unix::fs::PermissionsExt;

    fn peer_tls(authority: &Authority, issued: &Issued, cluster: &str) -> Result<PeerTls, String> {
        let (ca, certificate, key) = (
            fs::read(authority.certificate()).unwrap(),
            fs::read(&issued.certificate).unwrap(),
            fs::read(&issued.key).unwrap(),
        );
        PeerTls::new(cluster, Pem { ca: &ca, certificate: &certificate, key: &key }).map_err(|e| e.to_string())
    }

    #[test]
    fn peer_certificates_fit_their_cluster_only() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), "demo").unwrap();
        let issued = authority.peer("n1", "demo").unwrap();
        peer_tls(&authority, &issued, "demo").unwrap();
        assert!(peer_tls(&authority, &issued, "other").is_err());
    }

    #[tokio::test]
    async fn peer_certificates_serve_both_directions() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), "demo").unwrap();
        let [one, two] =
            ["n1", "n2"].map(|n| peer_tls(&authority, &authority.peer(n, "demo").unwrap(), "demo").unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accept = async { two.accept(listener.accept().await.unwrap().0).await };
        let connect = async { one.connect(tokio::net::TcpStream::connect(address).await.unwrap()).await };
        let (accepted, connected) = tokio::join!(accept, connect);
        assert!(accepted.unwrap().key.is_some() && connected.unwrap().key.is_some());
    }

    #[test]
    fn certificates_for_clients_follow_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), "demo").unwrap();
        let issue = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let issued = authority.ftp("h1-ftp", &names).unwrap();
            (fs::read(issued.certificate).unwrap(), fs::read(issued.key).unwrap())
        };
        let first = issue(&["localhost", "192.0.2.1"]);
        crate::ftp::FtpTls::new(&first.0, &first.1).unwrap();
        assert_eq!(issue(&["localhost", "192.0.2.1"]), first);
        let second = issue(&["localhost", "192.0.2.2"]);
        assert_ne!(second.0, first.0);
        crate::ftp::FtpTls::new(&second.0, &second.1).unwrap();
    }

    #[test]
    fn an_authority_without_its_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let certificate = Authority::open(dir.path(), "demo").unwrap().certificate();
        let before = fs::read(&certificate).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        let refusal = Authority::open(dir.path(), "demo").unwrap_err();
        assert!(matches!(refusal, PkiError::KeyMissing { .. }) && refusal.to_string().contains("ca.key"));
        assert_eq!(fs::read(&certificate).unwrap(), before);
    }

    #[test]
    fn files_are_kept_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let make = || {
            let authority = Authority::open(dir.path(), "demo").unwrap();
            [authority.peer("n1", "demo").unwrap(), authority.ftp_on_loopback().unwrap()]
        };
        let first = make();
        let before: Vec<Vec<u8>> = first.iter().map(|i| fs::read(&i.certificate).unwrap()).collect();
        assert_eq!(make(), first);
        let after: Vec<Vec<u8>> = first.iter().map(|i| fs::read(&i.certificate).unwrap()).collect();
        assert_eq!(before, after);
        for issued in &first {
            assert_eq!(fs::metadata(&issued.key).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
