//! What the program needs of its host before it starts.

use std::process::Command;

/// With every feature: libraries of a card's driver are opened when they are wanted, and a host
/// without them runs the same program.
#[test]
fn no_library_of_a_card_is_needed_to_start() {
    let program = env!("CARGO_BIN_EXE_neuron");
    let output = Command::new("readelf").args(["--dynamic", "--wide", program]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.strip_suffix(']'))
        .collect();
    assert!(needed.iter().any(|library| library.starts_with("libc.")), "{text}");
    // What every Linux with glibc has.
    const EVERYWHERE: [&str; 6] =
        ["libc.", "libm.", "libgcc_s.", "libdl.", "libpthread.", "ld-linux"];
    let known = |library: &&str| EVERYWHERE.iter().any(|known| library.starts_with(known));
    let others: Vec<&str> = needed.into_iter().filter(|library| !known(library)).collect();
    assert!(others.is_empty(), "{others:?}");
}
