//! Checks `kubernetes/` with kubeconform, built from the Go module proxy, against the schemas that a Python package carries:
//! those that Kubernetes publishes can't be had everywhere.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::tool::{self, root};

const KUBECONFORM: &str = "github.com/yannh/kubeconform/cmd/kubeconform@v0.6.7";
const SCHEMAS: &str = "kubernetes-validate==1.37.0";
/// The oldest release that is promised.
const RELEASE: &str = "v1.25.0";
/// Whose schemas are taken from the package, each with all definitions in it, as kubeconform follows no reference out of a file.
const UNPACK: &str = r##"
import glob, json, sys, zipfile
wheels, release, to = sys.argv[1:]
archive = zipfile.ZipFile(glob.glob(wheels + "/*.whl")[0])
read = lambda name: json.loads(archive.read(f"kubernetes_validate/kubernetes-json-schema/{release}-local-strict/{name}.json"))
definitions = read("_definitions")["$defs"]
for name in ["namespace-v1", "serviceaccount-v1", "clusterrole-rbac-v1", "clusterrolebinding-rbac-v1", "daemonset-apps-v1", "configmap-v1"]:
    schema = read(name)
    schema["$defs"] = definitions
    text = json.dumps(schema).replace('"/api/_definitions.json#', '"#')
    open(f"{to}/{name}.json", "w").write(text)
"##;

/// Checks all manifests; a spoiled one must be refused.
pub(crate) fn run() -> Result<()> {
    let place = tool::cache_directory()?.join("kubernetes");
    fs::create_dir_all(&place)?;
    prepare(&place)?;
    let manifests = ["namespace.yaml", "rbac.yaml", "daemonset.yaml"];
    let manifests = manifests.map(|name| root().join("kubernetes").join(name));
    let mut check = kubeconform(&place);
    tool::run(check.args(&manifests))?;
    // The check itself: a setting that does not exist.
    let spoiled = place.join("spoiled.yaml");
    let text = fs::read_to_string(root().join("kubernetes/daemonset.yaml"))?;
    fs::write(&spoiled, text.replace("hostPID:", "hostPid:"))?;
    if kubeconform(&place).arg(&spoiled).output()?.status.success() {
        bail!("kubeconform accepts a DaemonSet with hostPid");
    }
    println!("not checked for want of a schema: the PodMonitor (monitoring.coreos.com)");
    Ok(())
}

fn kubeconform(place: &Path) -> std::process::Command {
    let mut command = tool::command(place.join("kubeconform"));
    let schemas = place.join("schemas/{{.ResourceKind}}{{.KindSuffix}}.json");
    command
        .args(["-strict", "-summary", "-schema-location"])
        .arg(schemas);
    command
}

fn prepare(place: &Path) -> Result<()> {
    if !place.join("kubeconform").is_file() {
        tool::run(
            tool::command("go")
                .args(["install", KUBECONFORM])
                .env("GOBIN", place),
        )?;
    }
    let schemas = place.join("schemas");
    if !schemas.is_dir() {
        let (wheels, new) = (place.join("wheels"), place.join("schemas.new"));
        fs::create_dir_all(&new)?;
        tool::run(
            tool::command("python3")
                .args([
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    SCHEMAS,
                    "--dest",
                ])
                .arg(&wheels),
        )?;
        tool::run(
            tool::command("python3")
                .args(["-c", UNPACK])
                .arg(&wheels)
                .arg(RELEASE)
                .arg(&new),
        )?;
        fs::rename(new, schemas)?;
    }
    Ok(())
}
