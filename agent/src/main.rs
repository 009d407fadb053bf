//! The one binary of Bulkhead.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead::command::main()
}
