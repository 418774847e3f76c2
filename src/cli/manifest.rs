//! `manifest`: the sidecar as a strategic-merge patch, cut out of `k8s/deployment.yaml`, so that there is one truth.
//!
//! What stands between the marks in that file is the sidecar; the names and the user id of the example are replaced.

use clap::Args as ClapArgs;

const DEPLOYMENT: &str = include_str!("../../k8s/deployment.yaml");

/// The example's own names, which the arguments replace.
const EXAMPLE_CONTAINER: &str = "worker";
const EXAMPLE_UID: u32 = 10_001;

#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Name of the app's container, for its environment and its memory limit.
    #[arg(long, default_value = "app", value_name = "NAME", value_parser = dns_label)]
    pub container: String,
    /// User and group of the app; the sidecar must have both to read the app's memory.
    #[arg(long, default_value_t = EXAMPLE_UID, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uid: u32,
}

/// A name that Kubernetes takes for a container; also what keeps the YAML free of surprises.
fn dns_label(text: &str) -> Result<String, String> {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = |text: &str| !text.starts_with('-') && !text.ends_with('-');
    if (1..=63).contains(&text.len()) && text.bytes().all(fine) && ends(text) {
        return Ok(text.to_owned());
    }
    Err("expected a container's name: small letters, digits and '-', at most 63, such as \"app\"".to_owned())
}

/// The patch, as YAML for `kubectl patch --patch-file` or a kustomize component.
pub fn patch(args: &Args) -> String {
    let pod = between("pod").replace(&EXAMPLE_UID.to_string(), &args.uid.to_string());
    let sidecar = between("sidecar").replace(
        &format!("containerName: {EXAMPLE_CONTAINER}"),
        &format!("containerName: {}", quoted(&args.container)),
    );
    format!(
        "# Adds oomwatch to a Deployment whose app runs in the container \"{name}\" as user and group {uid}:\n\
         #   kubectl patch deployment NAME --patch-file oomwatch.yaml\n\
         # Expects the secret datadog-secret with the key api-key.\n\
         spec:\n  template:\n    spec:\n{pod}      initContainers:\n{sidecar}      containers:\n        - name: {quoted}\n{app}      volumes:\n{volumes}",
        name = args.container,
        uid = args.uid,
        quoted = quoted(&args.container),
        app = between("app"),
        volumes = between("volumes"),
    )
}

/// A name of digits alone would be a number in YAML.
fn quoted(name: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit())
        || ["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&name)
    {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    }
}

/// The lines between `# begin NAME` and `# end NAME`.
fn between(name: &str) -> String {
    let (begin, end) = (format!("# begin {name}"), format!("# end {name}"));
    DEPLOYMENT
        .lines()
        .skip_while(|line| line.trim() != begin)
        .skip(1)
        .take_while(|line| line.trim() != end)
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(container: &str, uid: u32) -> String {
        patch(&Args { container: container.to_owned(), uid })
    }

    #[test]
    fn every_part_is_cut_out_of_the_deployment() {
        for part in ["pod", "sidecar", "app", "volumes"] {
            assert!(!between(part).is_empty(), "{part}");
        }
    }

    #[test]
    fn names_and_user_of_the_example_are_replaced() {
        let patch = made("web", 1234);
        assert!(patch.contains("containerName: web\n") && patch.contains("- name: web\n"), "{patch}");
        assert!(patch.contains("runAsUser: 1234\n") && patch.contains("runAsGroup: 1234\n"), "{patch}");
        assert!(!patch.contains("10001") && !patch.contains("containerName: worker"), "{patch}");
    }

    #[test]
    fn only_what_kubernetes_takes_is_a_name() {
        for name in ["", "Web", "a_b", "-a", "a\n", "a: b"] {
            assert!(dns_label(name).is_err(), "{name:?}");
        }
        assert!(made("7", 1).contains("containerName: \"7\""));
    }
}
