//! The `shardlake` binary. Everything is in the library, so that tests and the simulation run the same code.

use std::process::ExitCode;

fn main() -> ExitCode {
    shardlake::cli::main()
}
