//! What `oomwatch manifest` prints is a patch that Kubernetes' tools take: `kubectl` applies it, without a cluster, to a bare
//! Deployment.

use std::process::Command;

use oomwatch::cli::manifest::{Args, patch};

const BARE: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: app
          image: web:1
          env: [{name: KEPT, value: yes-it-is}]
";

#[test]
fn the_patch_adds_a_native_sidecar_and_leaves_the_rest() {
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        println!("SKIPPED the_patch_adds_a_native_sidecar_and_leaves_the_rest: kubectl is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (deployment, change) = (folder.path().join("deployment.yaml"), folder.path().join("patch.yaml"));
    std::fs::write(&deployment, BARE).expect("written");
    std::fs::write(&change, patch(&Args { container: "app".to_owned(), uid: 1234 })).expect("written");

    let output = Command::new("kubectl")
        .args(["patch", "--local", "--type=strategic", "-o", "json", "-f"])
        .arg(&deployment)
        .arg("--patch-file")
        .arg(&change)
        .output()
        .expect("kubectl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let patched: serde_json::Value = serde_json::from_slice(&output.stdout).expect("kubectl prints JSON");
    let pod = &patched["spec"]["template"]["spec"];
    let sidecar = &pod["initContainers"][0];
    assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&"oomwatch".into(), &"Always".into()));
    assert_eq!(pod["shareProcessNamespace"], true);
    assert_eq!(
        (&pod["securityContext"]["runAsUser"], &pod["securityContext"]["runAsGroup"]),
        (&1234.into(), &1234.into())
    );
    let env = sidecar["env"].as_array().expect("a list");
    let limit = env.iter().find(|entry| entry["name"] == "APP_MEMORY_LIMIT").expect("the limit is passed on");
    assert_eq!(limit["valueFrom"]["resourceFieldRef"]["containerName"], "app");
    let app = &pod["containers"][0];
    assert_eq!((&app["image"], pod["containers"].as_array().map(Vec::len)), (&"web:1".into(), Some(1)));
    let names: Vec<&str> =
        app["env"].as_array().expect("a list").iter().filter_map(|entry| entry["name"].as_str()).collect();
    assert!(["KEPT", "DD_AGENT_HOST", "DD_DOGSTATSD_URL"].iter().all(|name| names.contains(name)), "{names:?}");
    assert_eq!(pod["volumes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn every_setting_of_the_example_is_one_of_ours() {
    let deployment = include_str!("../k8s/deployment.yaml");
    let variables = deployment
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- name: "))
        .filter(|name| name.starts_with("OOMWATCH_"));
    for variable in variables {
        assert!(
            oomwatch::config::keys().any(|key| key.variable() == variable),
            "{variable} in k8s/deployment.yaml sets nothing"
        );
    }
}
