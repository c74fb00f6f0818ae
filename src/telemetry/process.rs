//! What the operating system says of this process.
//!
//! Owns: processor time and memory, from Linux's `/proc` (proc(5)). On other systems both are unknown.

/// Ticks of `/proc/self/stat` in a second: `USER_HZ`, which is 100 on every architecture that Rust supports.
const TICKS: f64 = 100.0;

/// Processor time of the process in seconds: in its own code, and in the kernel.
pub(super) fn cpu_seconds() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program is in parentheses, and may have any characters. Fields 14 and 15 are the 12th and 13th after it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut seconds = || fields.next()?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
    Some((seconds()?, seconds()?))
}

/// Resident memory of the process in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_memory_and_time() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        let (user, system) = cpu_seconds().unwrap();
        assert!(user >= 0.0 && system >= 0.0 && user + system < 3600.0);
    }
}
