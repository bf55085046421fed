//! The environment of a container: services, `envFrom`, `env`, in upstream's order of
//! precedence. Pure: the objects it draws on are given.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};

use super::env_file;
use super::expand::expand;
use super::fields::{self, Place};

/// ConfigMaps and Secrets of the pod's namespace, by name. A name that is asked for and
/// absent here does not exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps by name.
    pub config_maps: HashMap<String, ConfigMap>,
    /// Secrets by name.
    pub secrets: HashMap<String, Secret>,
    /// Contents of files in volumes, by the volume and the path.
    pub files: HashMap<(String, String), String>,
}

/// Files in volumes that a container's environment refers to: volume and path.
pub fn files(container: &Container) -> impl Iterator<Item = (&str, &str)> {
    let sources = container.env.iter().flatten().filter_map(|e| e.value_from.as_ref());
    let files = sources.filter_map(|source| source.file_key_ref.as_ref());
    files.map(|file| (file.volume_name.as_str(), file.path.as_str()))
}

/// Names of ConfigMaps and Secrets that a container's environment refers to.
pub fn references(container: &Container) -> (Vec<&str>, Vec<&str>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.as_str()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.as_str()));
    }
    (maps, secrets)
}

/// The whole environment, or what is missing in upstream's words (the message of
/// `CreateContainerConfigError`).
pub fn environment(
    pod: &Pod,
    container: &Container,
    services: &BTreeMap<String, String>,
    sources: &Sources,
    place: &Place,
) -> Result<Vec<(String, String)>, String> {
    let mut vars = Ordered::default();
    from_sources(container, sources, &mut vars)?;
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) if !text.is_empty() => {
                Some(expand(text, |n| vars.get(n).or_else(|| services.get(n)).cloned()))
            }
            (_, Some(source)) => from_one(pod, container, source, sources, place)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            vars.set(var.name.clone(), value);
        }
    }
    for (name, value) in services {
        if vars.get(name).is_none() {
            vars.set(name.clone(), value.clone());
        }
    }
    Ok(vars.list)
}

/// A list of variables in which setting a name again keeps its place.
#[derive(Default)]
struct Ordered {
    list: Vec<(String, String)>,
    index: HashMap<String, usize>,
}

impl Ordered {
    fn get(&self, name: &str) -> Option<&String> {
        self.index.get(name).map(|at| &self.list[*at].1)
    }

    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(at) => self.list[*at].1 = value,
            None => {
                self.index.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }
}

fn from_sources(
    container: &Container,
    sources: &Sources,
    vars: &mut Ordered,
) -> Result<(), String> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match sources.config_maps.get(&reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        vars.set(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap {:?} not found", reference.name)),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources.secrets.get(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let value = String::from_utf8_lossy(&value.0).into_owned();
                        vars.set(format!("{prefix}{key}"), value);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret {:?} not found", reference.name)),
            }
        }
    }
    Ok(())
}

/// The value of one `valueFrom`; `None` when it is optional and absent.
fn from_one(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources,
    place: &Place,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(selector) = &source.field_ref {
        return fields::field(pod, place, &selector.field_path).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields::resource(pod, container, place, selector).map(Some);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let Some(map) = sources.config_maps.get(&selector.name) else {
            return absent(optional, || format!("configmap {:?} not found", selector.name));
        };
        return match map.data.as_ref().and_then(|d| d.get(&selector.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => absent(optional, || {
                format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    selector.key, selector.name
                )
            }),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional == Some(true);
        let Some(secret) = sources.secrets.get(&selector.name) else {
            return absent(optional, || format!("secret {:?} not found", selector.name));
        };
        return match secret.data.as_ref().and_then(|d| d.get(&selector.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None => absent(optional, || {
                format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    selector.key, selector.name
                )
            }),
        };
    }
    if let Some(selector) = &source.file_key_ref {
        let optional = selector.optional == Some(true);
        let place = (selector.volume_name.clone(), selector.path.clone());
        let Some(text) = sources.files.get(&place) else {
            return absent(optional, || {
                format!("file {:?} not found in volume {:?}", selector.path, selector.volume_name)
            });
        };
        let value = env_file::value(text, &selector.key);
        return match value.map_err(|why| format!("couldn't parse env file: {why}"))? {
            Some(value) => Ok(Some(value)),
            None => absent(optional, || {
                format!(
                    "environment variable key {:?} not found in file {:?}",
                    selector.key, selector.path
                )
            }),
        };
    }
    Ok(None)
}

fn absent(optional: bool, message: impl FnOnce() -> String) -> Result<Option<String>, String> {
    if optional { Ok(None) } else { Err(message()) }
}

/// Variables for the services a pod of `namespace` sees: all of its own namespace when
/// `links` is on, and always `default/kubernetes`.
pub fn service_variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut visible: Vec<&Service> = services
        .filter(|service| {
            let own = service.metadata.namespace.as_deref().unwrap_or_default();
            let name = service.metadata.name.as_deref().unwrap_or_default();
            let has_ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref());
            has_ip.is_some_and(|ip| !ip.is_empty() && ip != "None")
                && ((links && own == namespace) || (own == "default" && name == "kubernetes"))
        })
        .collect();
    // A service of the pod's own namespace wins over the one in `default`.
    visible.sort_by_key(|s| s.metadata.namespace.as_deref() == Some(namespace));
    let mut out = BTreeMap::new();
    for service in visible {
        one_service(service, &mut out);
    }
    out
}

fn one_service(service: &Service, out: &mut BTreeMap<String, String>) {
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = upper(service.metadata.name.as_deref().unwrap_or_default());
    let Some(spec) = service.spec.as_ref() else { return };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    out.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    let Some(first) = ports.first() else { return };
    out.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.insert(format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{host}:{}", port.port);
        if std::ptr::eq(port, first) {
            out.insert(format!("{prefix}_PORT"), url.clone());
        }
        let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.insert(format!("{base}_PROTO"), lower);
        out.insert(format!("{base}_PORT"), port.port.to_string());
        out.insert(format!("{base}_ADDR"), ip.to_owned());
        out.insert(base, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolve(container: serde_json::Value, sources: &Sources) -> Result<String, String> {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}}));
        let container = serde_json::from_value(container).unwrap();
        let services = BTreeMap::from([("SVC".to_owned(), "10.43.0.9".to_owned())]);
        let list = environment(&pod.unwrap(), &container, &services, sources, &Place::default())?;
        Ok(list.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn precedence_and_expansion() {
        let map = json!({"data": {"A": "from", "B": "b"}});
        let sources = Sources {
            config_maps: HashMap::from([("cm".into(), serde_json::from_value(map).unwrap())]),
            ..Sources::default()
        };
        let container = json!({"name": "c",
            "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"},
                        {"secretRef": {"name": "none", "optional": true}}],
            "env": [{"name": "P_A", "value": "own"}, {"name": "X", "value": "$(P_A)-$(SVC)-$(NO)"},
                    {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
        assert_eq!(
            resolve(container, &sources).unwrap(),
            "P_A=own P_B=b X=own-10.43.0.9-$(NO) N=p SVC=10.43.0.9"
        );
    }

    #[test]
    fn what_is_missing_is_named_as_upstream_does() {
        let from = |key: &str| json!({"name": "c", "env": [{"name": "X", "valueFrom": {key: {"name": "n", "key": "k"}}}]});
        let none = Sources::default();
        let map: ConfigMap = serde_json::from_value(json!({"data": {}})).unwrap();
        let empty =
            Sources { config_maps: HashMap::from([("n".into(), map)]), ..Sources::default() };
        assert_eq!(
            resolve(from("configMapKeyRef"), &none).unwrap_err(),
            "configmap \"n\" not found"
        );
        assert_eq!(resolve(from("secretKeyRef"), &none).unwrap_err(), "secret \"n\" not found");
        assert_eq!(
            resolve(from("configMapKeyRef"), &empty).unwrap_err(),
            "couldn't find key k in ConfigMap ns/n"
        );
    }

    #[test]
    fn variables_of_files() {
        let from = |key: &str, optional: bool| {
            json!({"name": "c", "env": [{"name": "X", "valueFrom": {"fileKeyRef":
                {"volumeName": "v", "path": "f", "key": key, "optional": optional}}}]})
        };
        let none = Sources::default();
        let files = HashMap::from([(("v".into(), "f".into()), "K='one'\nwrong".into())]);
        let there = Sources { files, ..Sources::default() };
        assert_eq!(resolve(from("K", false), &there).unwrap(), "X=one SVC=10.43.0.9");
        assert_eq!(resolve(from("K", true), &none).unwrap(), "SVC=10.43.0.9");
        for (sources, why) in [
            (&none, "file \"f\" not found in volume \"v\""),
            (
                &there,
                "couldn't parse env file: invalid environment variable format at line 2: missing '='",
            ),
        ] {
            assert_eq!(resolve(from("L", false), sources).unwrap_err(), why);
        }
    }

    #[test]
    fn variables_of_services() {
        let service = |namespace: &str, name: &str, ip: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}}))
            .unwrap()
        };
        let all = [
            service("default", "kubernetes", "10.43.0.1"),
            service("ns", "my-web", "10.43.0.2"),
            service("ns", "headless", "None"),
        ];
        let vars = service_variables(all.iter(), "ns", true);
        assert_eq!(vars["MY_WEB_SERVICE_HOST"], "10.43.0.2");
        assert_eq!(vars["MY_WEB_SERVICE_PORT_HTTP"], "80");
        assert_eq!(vars["MY_WEB_PORT"], "tcp://10.43.0.2:80");
        assert_eq!(vars["MY_WEB_PORT_80_TCP_PROTO"], "tcp");
        assert_eq!(vars["KUBERNETES_SERVICE_HOST"], "10.43.0.1");
        assert!(!vars.contains_key("HEADLESS_SERVICE_HOST"));
        let vars = service_variables(all.iter(), "ns", false);
        assert!(vars.keys().all(|k| k.starts_with("KUBERNETES_")));
    }
}
