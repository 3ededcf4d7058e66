//! Self-made certificates.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process;

/// The configuration for both certificates. It replaces that of the machine.
const CONFIG: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = localhost
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
authorityKeyIdentifier = keyid
";

/// Creates a CA and a certificate for `localhost` and `127.0.0.1` that it signed: `authority.pem`,
/// `server.pem` and its key, `server.key`.
pub(crate) fn make(folder: &Path) {
    fs::write(folder.join("openssl.cnf"), CONFIG).expect("the folder is writable");
    let openssl = process::program("openssl", "openssl");
    let request = |name: &str, signed_by: &str| {
        let args = format!(
            "req -x509 -config openssl.cnf -days 30 -subj /CN={name} -extensions {name} \
             -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout {name}.key \
             -out {name}.pem{signed_by}"
        );
        process::run(&openssl, &args.split(' ').collect::<Vec<_>>(), folder);
    };
    request("authority", "");
    request("server", " -CA authority.pem -CAkey authority.key");
}

/// Returns the file with the CA certificate.
pub(crate) fn authority(folder: &Path) -> PathBuf {
    folder.join("authority.pem")
}
