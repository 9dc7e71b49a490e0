//! `trebol config check`: what it accepts a node starts with, what it refuses it explains, and it opens nothing.

use crate::cluster::Cluster;
use crate::ops::config_check;
use crate::{Outcome, Story, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("settings::good_ones_are_printed_as_they_count", &[], good),
    ("settings::each_mistake_is_one_sentence", &[], bad),
];

fn good() -> Outcome {
    Cluster::run(&[], |cluster| {
        // Of a running node: neither its ports nor its directory are in the way.
        let file = cluster.settings(0)?;
        let file = file.to_str().ok_or("no text")?;
        let nowhere = cluster.scratch("check")?.join("no/such/directory");
        let data = format!("--data={}", nowhere.display());
        let ran = config_check(
            &["--config", file, &data, "--core-min-copies", "3"],
            &[("TREBOL_ZONE", "cellar"), ("TREBOL_CORE_MIN_COPIES", "1")],
        )?;
        ensure(ran.status.success(), || format!("{}: {}", ran.status, ran.stderr))?;
        ensure(!nowhere.exists(), || "the data directory was made".to_owned())?;
        let printed: toml::Table = ran.stdout.parse()?;
        let value = |section: &str, key: &str| printed.get(section).and_then(|section| section.get(key)).cloned();
        ensure(value("node", "zone") == Some("cellar".into()), || format!("the variable is lost: {}", ran.stdout))?;
        ensure(value("core", "min_copies") == Some(3.into()), || format!("the flag is lost: {}", ran.stdout))?;
        ensure(value("core", "heartbeat_ms") == Some(250.into()), || format!("no defaults: {}", ran.stdout))?;
        ensure(value("ftp", "tls_key").is_some(), || "no path of the key".to_owned())?;
        for secret in ["PRIVATE", "argon2", &cluster.password] {
            ensure(!ran.stdout.contains(secret), || format!("{secret} is printed"))?;
        }
        // What it prints is a file that means the same.
        let again = cluster.scratch("check")?.join("printed.toml");
        fs::write(&again, &ran.stdout)?;
        let second = config_check(&["--config", again.to_str().ok_or("no text")?], &[])?;
        ensure(second.status.success() && second.stdout == ran.stdout, || {
            format!("{}\nis not\n{}", second.stdout, ran.stdout)
        })
    })
}

fn bad() -> Outcome {
    Cluster::run(&[], |cluster| {
        let place = cluster.scratch("check")?;
        let pki = cluster.ca.parent().ok_or("no directory")?.to_owned();
        let path = |file: &str| pki.join(file).display().to_string();
        let write = |name: &str, text: &str| -> Outcome<String> {
            fs::write(place.join(name), text)?;
            // No warning that others could read it.
            fs::set_permissions(place.join(name), fs::Permissions::from_mode(0o600))?;
            Ok(place.join(name).display().to_string())
        };
        let text = fs::read_to_string(cluster.settings(0)?)?;
        let nothing = write("nothing.pem", "no certificate\n")?;
        let strange = node::pki::Authority::open(&place.join("strange"), "dev")?.certificate().display().to_string();
        let users = write("users.toml", "[[user]]\nname = \"ana\"\npassword = \"clear\"\n")?;
        let typo = write("typo.toml", &text.replace("[ftp]", "[ftp]\nlissten = \"x\""))?;
        let kind = write("kind.toml", &text.replace("drain_s = 10", "drain_s = \"soon\""))?;
        let settings = cluster.settings(0)?.display().to_string();
        // One argument each, and what the sentence has to name.
        let flags: [(&str, &str); 14] = [
            ("--core-min-copies=9", "core.min_copies"),
            ("--core-min-copies=many", "--core-min-copies"),
            ("--admin-listen=2125", "--admin-listen"),
            ("--cluster=a.b", "\"a.b\""),
            ("--insecure-peers", "insecure_peers"),
            ("--ftp-tls-key=/no/such/key", "/no/such/key"),
            (&format!("--ftp-tls-key={}", path("n1-peer.key")), "FTP certificate and key"),
            (&format!("--ftp-tls-certificate={nothing}"), "FTP certificate"),
            (&format!("--peer-key={}", path("n2-peer.key")), "peer certificates"),
            (&format!("--peer-ca={strange}"), "peers would refuse the peer certificate"),
            (&format!("--peer-certificate={}", path("ftp.pem")), "dev.trebol"),
            (&format!("--ftp-users={users}"), "\"ana\""),
            ("--ftp-users=/no/such/users", "/no/such/users"),
            ("--ftp-idle-timeout-s=0", "ftp.idle_timeout_s"),
        ];
        for (flag, named) in flags {
            refused(&["--config", &settings, flag], &[], &[named])?;
        }
        let broken = write("broken.toml", "[[user]]\nname ana\n")?;
        refused(&["--config", &settings, &format!("--ftp-users={broken}")], &[], &["line 2"])?;
        refused(&["--config", &typo], &[], &["lissten"])?;
        refused(&["--config", &kind], &[], &["line"])?;
        refused(&["--config", "/no/such/file"], &[], &["/no/such/file"])?;
        refused(&["--config", &settings], &[("TREBOL_ADMIN_LISTENN", "127.0.0.1:1")], &["TREBOL_ADMIN_LISTEN\""])?;
        // All of them at once.
        let many =
            ["--config", &settings, "--core-min-copies=9", "--ftp-users=/no/such/users", "--ftp-ban-s=999999999"];
        refused(&many, &[], &["ftp.ban_s", "core.min_copies", "/no/such/users"])?;
        refused(&[], &[], &["peer.ca", "ftp.tls_certificate", "ftp.users"])
    })
}

/// Exit code 2, nothing printed, and one sentence for each of `named`, in this order.
fn refused(arguments: &[&str], environment: &[(&str, &str)], named: &[&str]) -> Outcome {
    let ran = config_check(arguments, environment)?;
    let said: Vec<&str> = ran.stderr.lines().collect();
    let all = said.len() == named.len() && said.iter().zip(named).all(|(said, named)| said.contains(named));
    let sentences = said.iter().all(|said| said.starts_with("trebol: "));
    ensure(ran.status.code() == Some(2) && ran.stdout.is_empty() && all && sentences, || {
        format!("{arguments:?} {environment:?}: {}\n{}\n{}", ran.status, ran.stdout, ran.stderr)
    })
}
