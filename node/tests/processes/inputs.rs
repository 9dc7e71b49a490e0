//! What clients should not send: each gets its reply code, the session goes on where it can, and stored files are as
//! they were.

use crate::cluster::Cluster;
use crate::control::{Control, trust};
use crate::{Outcome, Story, ensure};
use std::time::Duration;
use tokio::time::Instant;

/// The tests of this file.
pub(crate) const STORIES: &[Story] = &[
    ("inputs::bad_commands_are_answered_and_change_nothing", &[], bad_commands),
    ("inputs::nothing_travels_in_clear_by_default", &[], clear_is_refused),
    ("inputs::a_data_connection_never_opened_ends_in_425", &[], never_opened),
];

fn bad_commands() -> Outcome {
    Cluster::run(&[], |cluster| {
        let mut control = cluster.session(0)?;
        control.put("/kept", b"as it was")?;
        let long = format!("STOR {}", "x".repeat(5000));
        let typed: [(&[u8], &[u16]); 21] = [
            (b"FROB", &[500]),
            (b"FROB /kept", &[500]),
            (b"", &[500]),
            (b"   ", &[500]),
            (b"\x00\x01\x02", &[500, 501]),
            (long.as_bytes(), &[500]),
            (b"CWD ../..", &[501, 550]),
            (b"DELE /../kept", &[501, 550, 553]),
            (b"DELE /ke\0pt", &[501]),
            (b"DELE caf\xe9", &[501]),
            (b"MKD \xff\xfe\xfd", &[501]),
            (b"DELE", &[501]),
            (b"RETR /missing", &[550]),
            (b"DELE /missing", &[550]),
            (b"RMD /missing", &[550]),
            (b"CWD /kept", &[550]),
            (b"RNTO /elsewhere", &[503]),
            (b"REST minus", &[501]),
            (b"TYPE X", &[501, 504]),
            (b"PROT X", &[501, 504]),
            (b"STRU R", &[504]),
        ];
        for (line, codes) in typed {
            control.send(&[line, b"\r\n"].concat())?;
            let reply = control.reply()?;
            let shown = String::from_utf8_lossy(&line[..line.len().min(40)]);
            ensure(codes.contains(&reply.code), || format!("{shown:?} was answered {}, not {codes:?}", reply.text))?;
        }
        // Many at once are answered in their order; bare LF ends a line as well.
        control.send(b"NOOP\r\nFROB\nSYST\r\n")?;
        let codes = [control.reply()?.code, control.reply()?.code, control.reply()?.code];
        ensure(codes == [200, 500, 215], || format!("pipelined commands were answered {codes:?}"))?;
        // A line of 4 MiB is thrown away as it comes, and answered once.
        let mut endless = Control::connect(cluster.nodes[0].ftp, &trust(&cluster.ca)?)?;
        (0..64).try_for_each(|_| endless.send(&[b'x'; 65_536]))?;
        endless.send(b"\r\nNOOP\r\n")?;
        let codes = [endless.reply()?.code, endless.reply()?.code];
        ensure(codes == [500, 200], || format!("an endless line and NOOP were answered {codes:?}"))?;

        let names = control.list("NLST")?;
        ensure(names.lines().eq(["kept"]), || format!("now there are {names:?}"))?;
        ensure(cluster.session(4)?.get("/kept")? == b"as it was", || "/kept has changed".to_owned())
    })
}

fn clear_is_refused() -> Outcome {
    Cluster::run(&[], |cluster| {
        let trust = trust(&cluster.ca)?;
        let (user, password) = (&cluster.user, &cluster.password);
        let address = cluster.nodes[1].ftp;
        let mut control = Control::connect(address, &trust)?;
        control.expect(&format!("USER {user}"), 530)?;
        control.expect("LIST", 530)?;
        control.expect("STOR /x", 530)?;

        control.encrypt()?;
        let began = Instant::now();
        control.expect(&format!("USER {user}"), 331)?;
        let wrong = control.expect("PASS wrong", 530)?;
        control.expect("USER nobody-of-that-name", 331)?;
        let unknown = control.expect("PASS wrong", 530)?;
        ensure(wrong == unknown, || format!("{} tells who exists: {}", wrong.text, unknown.text))?;
        ensure(began.elapsed() < Duration::from_secs(20), || "two wrong passwords take too long".to_owned())?;
        control.expect("PASS again", 503)?;
        control.log_in(user, password)?;

        control.expect("PROT P", 503)?;
        control.expect("PBSZ 0", 200)?;
        control.expect("PROT C", 534)?;
        for line in ["STOR /x", "RETR /x", "LIST", "NLST", "MLSD"] {
            let _data = control.passive();
            let reply = control.command(line)?;
            ensure(reply.code == 521, || format!("{line} without PROT P was answered {}", reply.text))?;
        }
        control.protect()?;
        ensure(control.put("/x", b"x")?.code == 226, || "a protected STOR fails".to_owned())
    })
}

fn never_opened() -> Outcome {
    Cluster::run(&[("TREBOL_FTP_ACCEPT_TIMEOUT_S", "2")], |cluster| {
        let mut control = cluster.session(0)?;
        control.put("/kept", b"as it was")?;
        control.expect("EPSV", 229)?;
        let mut reply = control.command("STOR /kept")?;
        if reply.code == 150 {
            reply = control.reply()?;
        }
        ensure(reply.code == 425, || format!("no data connection, and {}", reply.text))?;
        let reply = control.command("RETR /kept")?;
        ensure(matches!(reply.code, 425 | 503), || format!("RETR without PASV was answered {}", reply.text))?;
        // Neither the old version nor the lock suffered.
        ensure(control.get("/kept")? == b"as it was", || "/kept has changed".to_owned())?;
        ensure(control.put("/kept", b"new")?.code == 226, || "the path is still locked".to_owned())
    })
}
