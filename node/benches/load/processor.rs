//! Processor time that servers have used, user and system, in seconds (proc(5), stat).

use crate::Outcome;
use std::fs;

/// The first of these fields of `/proc/PID/stat`, counted from 1: utime, stime, and the same of children that were waited for.
const FIRST: usize = 14;

/// Of one process.
pub(crate) fn of_process(pid: i32) -> Outcome<f64> {
    seconds(pid, 2)
}

/// Of a process, of all that it has waited for, and of those below it that still live: servers that fork for each session.
pub(crate) fn of_tree(pid: i32) -> Outcome<f64> {
    let mut sum = seconds(pid, 4)?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        for child in fs::read_to_string(task?.path().join("children"))?.split_ascii_whitespace() {
            // One that ends meanwhile is waited for, and counts the next time.
            sum += of_tree(child.parse()?).unwrap_or(0.0);
        }
    }
    Ok(sum)
}

fn seconds(pid: i32, fields: usize) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses.
    let all = stat.rsplit_once(") ").ok_or("no stat of a process")?.1.split(' ').skip(FIRST - 3);
    let ticks: f64 = all.take(fields).map(str::parse::<f64>).sum::<Result<_, _>>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}
