//! Wireshark reads our captures: names, stamps, checksums, lengths, and what faults did.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::process::{Command, Stdio};

use halfopen::setup::netlink::Family;
use nix::sys::signal::Signal;

use super::lab::{Lab, Way};
use super::succeeded;

/// A megabyte down, one SYN lost and one FIN swallowed; then tshark and capinfos.
pub(crate) fn wireshark_reads_the_capture() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("flows.pcapng");
    let path = file.to_str().expect("temporary directories have plain names");
    let faults = ["--fault", "syn-drop first=1", "--fault", "fin-drop direction=downstream first=1"];
    let mut options = vec!["--grace", "0", "--pcap", path];
    options.extend(faults);
    let mut lab = Lab::with(Way::Proxied, &options);
    for family in [Family::V4, Family::V6] {
        let listener = lab.listen(family);
        let (mut client, mut server) = lab.pair_by(&listener);
        server.write_all(&[7; 1 << 20]).expect("taken");
        server.shutdown(Shutdown::Write).expect("a live socket");
        let mut all = Vec::new();
        client.read_to_end(&mut all).expect("all arrives");
        assert_eq!(all.len(), 1 << 20);
    }
    let mut halfopen = lab.halfopen.take().expect("it runs until now");
    let status = halfopen.end_by(Signal::SIGTERM);
    assert!(status.success(), "halfopen ended with {status}; it said:\n{}", halfopen.said());

    let about = run(Command::new("capinfos").args(["-M", "-t", "-E", "-c", "-I"]).arg(&file));
    assert!(about.contains("pcapng"), "{about}");
    assert!(about.contains("Number of interfaces in file: 2"), "{about}");
    let said = |filter: &str| {
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-r"]).arg(&file);
        tshark.args(["-Y", filter, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"]);
        run(&mut tshark)
    };
    assert_eq!(said("_ws.malformed || _ws.short || _ws.expert.severity >= 8388608"), "");
    assert_eq!(said("tcp.checksum.status == \"Bad\" || ip.checksum.status == \"Bad\""), "");
    assert_eq!(
        said("tcp.flags.syn == 1 && frame.comment contains \"syn-drop: drops it\"").lines().count(),
        2
    );
    let fins = said("frame.comment contains \"fin-drop\"");
    assert!(fins.lines().count() >= 2 && fins.lines().all(|line| line.starts_with("server\t")), "{fins}");
    assert!(
        !said("frame.interface_name == \"client\" && tcp.len > 1460").is_empty(),
        "super-segments are whole"
    );
    its_ladder_is_a_picture_that_others_read(&file);
}

fn its_ladder_is_a_picture_that_others_read(file: &Path) {
    let mut ladder = Command::new(env!("CARGO_BIN_EXE_halfopen"));
    let svg = run(ladder.arg("ladder").arg(file).args(["--flow", "2", "--format", "svg"]));
    // A FIN that comes with data is rewritten, and no whole segment dropped.
    assert!(svg.contains("syn-drop drops it") && svg.contains("fin-drop "), "{svg}");
    let picture = file.with_extension("svg");
    std::fs::write(&picture, svg).expect("a temporary file");
    let parse = "import sys, xml.dom.minidom as x; print(x.parse(sys.argv[1]).documentElement.tagName)";
    assert_eq!(run(Command::new("python3").args(["-c", parse]).arg(&picture)), "svg\n");
}

fn run(command: &mut Command) -> String {
    let program = Path::new(command.get_program()).display().to_string();
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    succeeded(&program, &done)
}
