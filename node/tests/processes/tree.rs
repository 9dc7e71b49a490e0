//! Trees nobody made for the test, hostile names and large files: up through one node, down through another, the same.

use crate::clients::{LONGEST, curl, lftp, python, run, succeed};
use crate::cluster::Cluster;
use crate::verify::{Surplus, all_whole, hashes, holds_tree};
use crate::{Outcome, Story, ensure};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("tree::lftp_mirrors_2000_files_up_and_down", &["lftp", "diff"], lftp_mirrors_a_real_tree),
    ("tree::curl_and_ftplib_carry_a_tree_and_a_large_file", &["curl", "python3", "diff"], curl_and_ftplib),
    ("tree::hostile_names_are_kept_or_refused_cleanly", &["python3"], hostile_names),
    ("tree::wget_ncftp_and_tnftp_work_in_clear_where_allowed", &["wget", "ncftpput", "ncftpget", "tnftp"], in_clear),
];

/// Files of the real tree.
const FILES: usize = 2000;
/// Largest of them; the large file has a test of its own.
const LARGEST: u64 = 4 << 20;

fn lftp_mirrors_a_real_tree() -> Outcome {
    Cluster::run(&[], |cluster| {
        let (up, down) = (cluster.scratch("up")?, cluster.scratch("down")?);
        real_tree(&up, FILES)?;
        let log = cluster.scratch("logs")?;
        let script = format!("mirror -R -L --parallel=8 {} /tree", up.display());
        succeed(&mut lftp(cluster, 0, &log.join("up"), &script)?)?;
        let script = format!("mirror --parallel=8 /tree {}", down.display());
        succeed(&mut lftp(cluster, 3, &log.join("down"), &script)?)?;
        succeed(Command::new("diff").arg("-r").args([&up, &down]))?;
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::None)?;
        holds_tree(&kept, "/tree", &hashes(&up)?)
    })
}

fn curl_and_ftplib() -> Outcome {
    Cluster::run(&[], |cluster| {
        let (up, down) = (cluster.scratch("up")?, cluster.scratch("down")?);
        real_tree(&up, 100)?;
        let large = up.join("large");
        let mebibytes = if std::env::var("TREBOL_LONG").is_ok_and(|set| set == "1") { 1024 } else { 64 };
        random_file(&large, mebibytes)?;

        succeed(curl(cluster, 0, "by-curl/").args(["--ftp-create-dirs", "--upload-file"]).arg(&large))?;
        succeed(curl(cluster, 3, "by-curl/large").arg("--output").arg(down.join("curl")))?;
        succeed(Command::new("cmp").arg(&large).arg(down.join("curl")))?;
        // The second half only: REST and RETR.
        succeed(curl(cluster, 2, "by-curl/large").args(["--continue-at", "-", "--output"]).arg(half(&large, &down)?))?;
        succeed(Command::new("cmp").arg(&large).arg(down.join("half")))?;

        succeed(&mut python(cluster, 0, PUT_TREE, &[&up]))?;
        let tree = down.join("tree");
        succeed(&mut python(cluster, 3, GET_TREE, &[&tree]))?;
        succeed(Command::new("diff").arg("-r").args([&up, &tree]))?;
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::None)?;
        holds_tree(&kept, "/by-ftplib", &hashes(&up)?)
    })
}

/// The first half of a file, for a client to continue.
fn half(file: &Path, directory: &Path) -> Outcome<PathBuf> {
    let bytes = fs::read(file)?;
    let path = directory.join("half");
    fs::write(&path, &bytes[..bytes.len() / 2])?;
    Ok(path)
}

const PUT_TREE: &str = r"
import os
ftp.mkd('/by-ftplib')
root = argv[0]
for directory, _, files in sorted(os.walk(root)):
    there = '/by-ftplib' + directory[len(root):]
    if directory != root:
        ftp.mkd(there)
    for name in files:
        with open(os.path.join(directory, name), 'rb') as file:
            ftp.storbinary('STOR ' + there + '/' + name, file)
ftp.quit()
";

const GET_TREE: &str = r"
import os
def fetch(there, here):
    os.makedirs(here)
    for name, facts in sorted(ftp.mlsd(there)):
        path, local = there + '/' + name, os.path.join(here, name)
        if facts['type'] == 'dir':
            fetch(path, local)
        elif facts['type'] == 'file':
            with open(local, 'wb') as file:
                ftp.retrbinary('RETR ' + path, file.write)
            assert ftp.size(path) == int(facts['size']) == os.path.getsize(local), path
fetch('/by-ftplib', argv[0])
ftp.quit()
";

fn hostile_names() -> Outcome {
    Cluster::run(&[], |cluster| {
        let printed = succeed(&mut python(cluster, 0, PUT_NAMES, &[]))?;
        let sent: usize = printed.trim().parse()?;
        let ran = run(&mut python(cluster, 4, GET_NAMES, &[]), LONGEST)?;
        ensure(ran.status.success(), || format!("{}\n{}", ran.stdout, ran.stderr))?;
        cluster.settle()?;
        let kept = all_whole(cluster, Surplus::None)?;
        ensure(kept.len() == sent, || format!("{} files kept, {sent} sent: {:?}", kept.len(), kept.keys()))
    })
}

/// Names that some server somewhere mishandles. Shared by the two programs below.
macro_rules! names {
    ($rest:literal) => {
        concat!(
            r#"
import io, unicodedata
names = [
    'plain', '"quoted"', "it's", '""', '"', '-rf', '--', '-la', ' leading', 'trailing ', 'two  spaces', ' ', '...', '.hidden',
    'a\\b', 'tab\there', '$(id)', '`id`', ';ls', '|x', '&', '*', '?', '[a-z]', '{a,b}', '~', '~root', '%00', '%2e%2e',
    'a:b', '<x>', '#1', '!', '^', '=', '@', '\x01', '\x7f', 'x' * 255, '\u00e9' * 127, 'RETR plain', '226 ok', 'type=file; x',
    '\u65e5\u672c\u8a9e', '\U0001f340', '\u202egnp', '\u00ff\u00f4\u00f2', 'con', 'nul.txt', '.conflicts-not', 'CaSe', 'cAsE',
    unicodedata.normalize('NFC', 'se\u00f1or'), unicodedata.normalize('NFD', 'se\u00f1or'),
]
def content(name):
    return ('content of ' + repr(name)).encode() * 3
"#,
            $rest
        )
    };
}

const PUT_NAMES: &str = names!(
    r#"
ftp.mkd('/names')
ftp.cwd('/names')
for name in names:
    ftp.storbinary('STOR ' + name, io.BytesIO(content(name)))
    ftp.mkd('/names/d ' + name[:100])
    ftp.cwd('/names/d ' + name[:100])
    assert ftp.pwd() == '/names/d ' + name[:100], (ftp.pwd(), name)
    ftp.cwd('/names')

def refused(command, codes=('501', '550', '553')):
    try:
        if command.startswith('STOR'):
            ftp.storbinary(command, io.BytesIO(b'refused'))
        else:
            ftp.voidcmd(command)
    except ftplib.error_perm as error:
        assert str(error)[:3] in codes, (command, error)
    else:
        raise AssertionError('accepted: ' + command)
    ftp.voidcmd('NOOP')

before = sorted(ftp.nlst('/names'))
for bad in ['x' * 256, '\u00e9' * 128, '/names/' + 'y' * 300 + '/z', '..', '.', '/', '../../x', '/../x', 'a\0b', 'no/such/directory/x', 'plain/below-a-file']:
    refused('STOR ' + bad)
for bad in ['x' * 256, 'a\0b', '../../x', 'plain', 'plain/below']:
    refused('MKD ' + bad, ('501', '521', '550', '553'))
ftp.encoding = 'latin-1'
for bad in ['\xff\xfe', 'caf\xe9', 'ok\xc3', '\xc0\xaf']:
    refused('MKD ' + bad)
    refused('STOR ' + bad)
ftp.encoding = 'utf-8'
assert sorted(ftp.nlst('/names')) == before
print(len(names))
ftp.quit()
"#
);

const GET_NAMES: &str = names!(
    r#"
ftp.cwd('/names')
files = {name: facts for name, facts in ftp.mlsd() if facts['type'] == 'file'}
assert sorted(files) == sorted(names), sorted(set(files) ^ set(names))
listed = set(ftp.nlst())
assert listed == set(names) | {'d ' + name[:100] for name in names}, listed ^ set(names)
for name in names:
    got = []
    ftp.retrbinary('RETR ' + name, got.append)
    assert b''.join(got) == content(name), name
    assert int(files[name]['size']) == len(content(name)), name
    assert ftp.size('/names/' + name) == len(content(name)), name
ftp.quit()
"#
);

fn in_clear() -> Outcome {
    // These three know no explicit TLS in Debian; they are for operators who allow plain sessions.
    Cluster::run(&[("TREBOL_FTP_REQUIRE_TLS", "false")], |cluster| {
        let (up, down) = (cluster.scratch("up")?, cluster.scratch("down")?);
        random_file(&up.join("file"), 3)?;
        let (user, password) = (cluster.user.clone(), cluster.password.clone());
        let at = |node: usize| (cluster.nodes[node].ftp.ip().to_string(), cluster.nodes[node].ftp.port().to_string());

        let (host, port) = at(0);
        let login = ["-u", &user, "-p", &password, "-P", &port];
        succeed(Command::new("ncftpput").args(login).args(["-m", &host, "/ncftp"]).arg(up.join("file")))?;
        let (host, port) = at(3);
        let login = ["-u", &user, "-p", &password, "-P", &port];
        succeed(Command::new("ncftpget").args(login).arg(&host).arg(&down).arg("/ncftp/file"))?;
        succeed(Command::new("cmp").arg(up.join("file")).arg(down.join("file")))?;

        let (host, port) = at(4);
        let url = format!("ftp://{user}:{password}@{host}:{port}/tnftp");
        succeed(Command::new("tnftp").args(["-u", &url]).arg(up.join("file")))?;
        let (host, port) = at(1);
        let url = format!("ftp://{user}:{password}@{host}:{port}/tnftp");
        succeed(Command::new("tnftp").arg("-o").arg(down.join("tnftp")).arg(&url))?;
        succeed(Command::new("cmp").arg(up.join("file")).arg(down.join("tnftp")))?;

        let (host, port) = at(2);
        let url = format!("ftp://{host}:{port}/ncftp/file");
        let login = [format!("--user={user}"), format!("--password={password}"), "--tries=1".to_owned()];
        succeed(Command::new("wget").args(login).arg("--output-document").arg(down.join("wget")).arg(&url))?;
        succeed(Command::new("cmp").arg(up.join("file")).arg(down.join("wget")))?;
        Ok(())
    })
}

/// Copies `count` files of this machine into `root`, the same ones every time, links followed, unreadable ones skipped.
fn real_tree(root: &Path, count: usize) -> Outcome {
    let mut found = Vec::new();
    // The second is for machines with little in the first.
    for source in ["/usr/share", "/usr/lib"] {
        if found.len() < count {
            collect(Path::new(source), 0, &mut found);
        }
    }
    ensure(found.len() >= count, || format!("only {} files on this machine", found.len()))?;
    let stride = found.len() / count;
    for source in found.iter().step_by(stride).take(count) {
        let target = root.join(source.strip_prefix("/usr")?);
        fs::create_dir_all(target.parent().ok_or("a file without a directory")?)?;
        fs::write(&target, fs::read(source)?)?;
    }
    Ok(())
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        // Links may go in circles: no tree of a distribution is that deep.
        let Ok(about) = fs::metadata(&path) else { continue };
        if about.is_dir() && depth < 8 {
            collect(&path, depth + 1, found);
        } else if about.is_file() && about.len() <= LARGEST && path.to_str().is_some() && fs::File::open(&path).is_ok()
        {
            found.push(path);
        }
    }
}

/// A file of bytes that do not compress and are the same every time.
pub(crate) fn random_file(path: &Path, mebibytes: usize) -> Outcome {
    let mut file = fs::File::create(path)?;
    let mut source = blake3::Hasher::new().finalize_xof();
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        source.fill(&mut chunk);
        file.write_all(&chunk)?;
    }
    Ok(())
}
