//! Results on stdout.

use crate::deployment::{Deployment, Done, Report};
use crate::plan::Plan;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::io::Write as _;

/// A reader that went away (`| head`) is told like any other error, not by a panic.
pub(super) fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot print")
}

pub(super) fn plan(plan: &Plan) -> Result<()> {
    let mut all = String::new();
    for notice in &plan.notices {
        let _ = writeln!(all, "note: {notice}");
    }
    for step in &plan.steps {
        let _ = writeln!(all, "{step}");
    }
    if plan.steps.is_empty() {
        all.push_str("nothing would change\n");
    }
    text(&all)
}

/// What was done, and where the nodes are.
pub(super) fn done(done: &Done) -> Result<()> {
    let mut all = match done.changes {
        0 => "nothing changed\n\n".to_owned(),
        1 => "one change\n\n".to_owned(),
        changes => format!("{changes} changes\n\n"),
    };
    let mut rows = vec![["NODE", "FTP"].map(str::to_owned)];
    rows.extend(done.endpoints.iter().map(|end| [end.node.to_string(), end.ftp.to_string()]));
    all.push_str(&columns(&rows));
    text(&all)
}

/// The same, and how to use it.
pub(super) fn up(deployment: &Deployment, result: &Done, json: bool) -> Result<()> {
    let (passwords, ca) = (deployment.passwords()?, deployment.authority_file());
    if json {
        let nodes =
            result.endpoints.iter().map(|end| serde_json::json!({"node": end.node.to_string(), "ftp": end.ftp}));
        let users = passwords.iter().map(|made| serde_json::json!({"user": made.user, "password": made.password}));
        let all = serde_json::json!({
            "changes": result.changes,
            "nodes": nodes.collect::<Vec<_>>(),
            "users": users.collect::<Vec<_>>(),
            "ca": ca,
        });
        return text(&format!("{all}\n"));
    }
    done(result)?;
    let mut all = String::new();
    for made in &passwords {
        let _ = write!(all, "\nuser {}, password {}", made.user, made.password);
    }
    let (user, ca) = (passwords.first(), ca.display());
    let who = user.map_or("USER".to_owned(), |made| format!("{}:{}", made.user, made.password));
    if let (Some(first), Some(last)) = (result.endpoints.first(), result.endpoints.last()) {
        let curl = format!("curl --ssl-reqd --cacert '{ca}' -u {who}");
        let from = if first == last { "fetch it again" } else { "fetch it from another" };
        let _ = writeln!(all, "\n\nStore a file on one node, {from}:");
        let _ = writeln!(all, "  {curl} -T FILE ftp://{}/", first.ftp);
        let _ = writeln!(all, "  {curl} -O ftp://{}/FILE", last.ftp);
    }
    text(&all)
}

pub(super) fn report(report: &Report, json: bool) -> Result<()> {
    if json {
        return text(&(serde_json::to_string(report)? + "\n"));
    }
    let mut all = format!(
        "cluster {}\nleader  {}\nfiles   {}, {} copies missing\n\n",
        report.cluster,
        report.leader.as_deref().unwrap_or("none: writes wait"),
        report.files,
        report.missing_copies,
    );
    let mut rows = vec![["NODE", "HOST", "FTP", "CONTAINER", "STATE", "BEHIND", "COPIES", "IMAGE"].map(str::to_owned)];
    rows.extend(report.nodes.iter().map(|node| {
        let (behind, copies) = (node.behind.to_string(), node.copies.to_string());
        let words = [&node.node, &node.host, &node.ftp, &node.task, &node.liveness, &behind, &copies, &node.image];
        words.map(String::clone)
    }));
    all.push_str(&columns(&rows));
    for fault in &report.faults {
        let _ = writeln!(all, "\nwrong: {fault}");
    }
    for risk in &report.risks {
        let _ = writeln!(all, "\nat risk: {risk}");
    }
    text(&all)
}

/// Rows with columns as wide as their widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
