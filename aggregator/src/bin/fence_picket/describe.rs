//! What `fence_picket` says of itself: the metadata that cluster managers read (fence-agents' form), and the usage.

use std::fmt::Write;

use crate::options::{Action, Kind, Known, OPTIONS};

const LONG: &str = "fence_picket is an I/O Fencing agent for hosts that Picket manages. Off is Picket's fence: the power is switched \
    off by the agent at the host's rack, and success means that it was read back as off, several times. A fenced host stays off \
    until it is released, which on and reboot do.";

/// The name, the option behind it, and what is said of the name: that it is old, or that it stands in for the old one.
type Parameter = (String, &'static Known, String);

fn parameters() -> Vec<Parameter> {
    let named = |known: &'static Known| {
        let name = known.long.replace('-', "_");
        let old = known.old.map(|old| (old.to_owned(), known, " deprecated=\"1\"".to_owned()));
        let note = known.old.map(|old| format!(" obsoletes=\"{old}\"")).unwrap_or_default();
        old.into_iter().chain([(name, known, note)])
    };
    let mut parameters: Vec<Parameter> = OPTIONS.iter().flat_map(named).collect();
    parameters.sort_by(|(left, a, _), (right, b, _)| (a.order, left).cmp(&(b.order, right)));
    parameters
}

/// `-o, --action=[action]`.
fn form(known: &Known) -> String {
    let short = known.short.map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = if known.kind == Kind::Flag { String::new() } else { format!("=[{}]", known.value) };
    format!("{short}--{}{value}", known.long)
}

/// The metadata.
///
/// # Errors
/// None in practice: text is written into memory.
pub fn metadata() -> Result<String, std::fmt::Error> {
    let mut xml = String::from("<?xml version=\"1.0\" ?>\n");
    writeln!(xml, "<resource-agent name=\"fence_picket\" shortdesc=\"Fence agent for Picket\" >")?;
    writeln!(xml, "<longdesc>{}</longdesc>", escaped(LONG))?;
    writeln!(xml, "<vendor-url></vendor-url>\n<parameters>")?;
    for (name, known, note) in parameters() {
        let required = u8::from(known.required);
        let default = known.default.map(|default| format!("default=\"{}\" ", escaped(default))).unwrap_or_default();
        writeln!(xml, "\t<parameter name=\"{name}\" unique=\"0\" required=\"{required}\"{note}>")?;
        writeln!(xml, "\t\t<getopt mixed=\"{}\" />", escaped(&form(known)))?;
        writeln!(xml, "\t\t<content type=\"{}\" {default} />", known.kind.as_str())?;
        writeln!(xml, "\t\t<shortdesc lang=\"en\">{}</shortdesc>\n\t</parameter>", escaped(known.help))?;
    }
    writeln!(xml, "</parameters>\n<actions>")?;
    for action in Action::NAMES {
        // Nodes are not unfenced when they start: Picket's fence is the power, not a switch port.
        let automatic = if action == "on" { "automatic=\"0\"" } else { "" };
        writeln!(xml, "\t<action name=\"{action}\" {automatic}/>")?;
    }
    writeln!(xml, "</actions>\n</resource-agent>")?;
    Ok(xml)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What `--help` prints.
///
/// # Errors
/// None in practice: text is written into memory.
pub fn usage() -> Result<String, std::fmt::Error> {
    let mut text = String::from("Usage:\n\tfence_picket [options]\nOptions:\n");
    for known in OPTIONS {
        let default = known.default.map(|default| format!(" (default: {default})")).unwrap_or_default();
        writeln!(text, "   {:<31}{}{default}", form(known), known.help)?;
    }
    writeln!(text, "\nActions: {}", Action::NAMES.join(", "))?;
    writeln!(
        text,
        "Without options, the same are read from stdin: a line `name=value` each. Exit codes: 0, 1 failed, 2 status is off."
    )?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_with_their_older_ones() {
        let xml = metadata().unwrap();
        for line in [
            "\t<parameter name=\"action\" unique=\"0\" required=\"1\">\n\t\t<getopt mixed=\"-o, --action=[action]\" />\n\
             \t\t<content type=\"string\" default=\"reboot\"  />\n\t\t<shortdesc lang=\"en\">Fencing action</shortdesc>\n\t</parameter>\n",
            "\t<parameter name=\"ipaddr\" unique=\"0\" required=\"1\" deprecated=\"1\">\n",
            "\t<parameter name=\"ip\" unique=\"0\" required=\"1\" obsoletes=\"ipaddr\">\n",
            "\t<parameter name=\"delay\" unique=\"0\" required=\"0\">\n\t\t<getopt mixed=\"--delay=[seconds]\" />\n",
            "\t<action name=\"on\" automatic=\"0\"/>\n\t<action name=\"off\" />\n",
        ] {
            assert!(xml.contains(line), "{line}\n{xml}");
        }
        assert!(usage().unwrap().contains("   -n, --plug=[id]                Id of the host in Picket\n"));
    }
}
