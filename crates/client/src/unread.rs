use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, Pod, PodTemplate, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object as the server wrote it, of a kind that is known elsewhere.
///
/// All watches are watches of these, so that the machinery of a watch is in the binary once and
/// the decoder of each kind once: with a watch for each kind a decoder was made twice more (an
/// event's object may come before its type), which was megabytes of code.
#[derive(Clone, Debug)]
pub(crate) struct Unread {
    /// Of this a watch reads the version alone, and nothing else is here.
    meta: ObjectMeta,
    text: Box<RawValue>,
}

impl Unread {
    /// The object. An error says what is not as its kind wants it.
    pub(crate) fn read<K: DeserializeOwned>(&self) -> serde_json::Result<K> {
        serde_json::from_str(self.text.get())
    }
}

/// Reads of the kinds that several crates read. A crate takes over what a crate below it has made;
/// without these each of agent, controllers, scheduler and binary would make decoders of its own.
#[used]
static SHARED: [fn(&str) -> bool; 12] = [
    reads::<ConfigMap>,
    reads::<Deployment>,
    reads::<EndpointSlice>,
    reads::<Lease>,
    reads::<Namespace>,
    reads::<Node>,
    reads::<Pod>,
    reads::<PodTemplate>,
    reads::<ReplicaSet>,
    reads::<Secret>,
    reads::<Service>,
    reads::<ServiceAccount>,
];

fn reads<K: DeserializeOwned>(text: &str) -> bool {
    serde_json::from_str::<K>(text).is_ok()
}

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Versioned {
            metadata: Version,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            resource_version: Option<String>,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let versioned: Versioned = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let resource_version = versioned.metadata.resource_version;
        Ok(Unread { meta: ObjectMeta { resource_version, ..Default::default() }, text })
    }
}

impl Resource for Unread {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.kind).into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.group).into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.version).into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.api_version).into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.plural).into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::{ObjectList, WatchEvent};

    #[test]
    fn events_and_lists_keep_their_objects_as_they_are() {
        let pod = r#"{"kind":"Pod","metadata":{"name":"p","resourceVersion":"7"},"spec":{"containers":[]}}"#;
        let event = format!(r#"{{"type":"ADDED","object":{pod}}}"#);
        let WatchEvent::Added(unread) = serde_json::from_str::<WatchEvent<Unread>>(&event).unwrap()
        else {
            panic!("{event}")
        };
        assert_eq!(unread.meta.resource_version.as_deref(), Some("7"));
        assert_eq!(unread.read::<Pod>().unwrap().metadata.name.as_deref(), Some("p"));

        let list = format!(r#"{{"metadata":{{"resourceVersion":"9"}},"items":[{pod},{pod}]}}"#);
        let list: ObjectList<Unread> = serde_json::from_str(&list).unwrap();
        assert_eq!(list.items.iter().map(|item| item.text.get()).collect::<Vec<_>>(), [pod, pod]);

        let odd = r#"{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"},"spec":3}}"#;
        let WatchEvent::Added(unread) = serde_json::from_str::<WatchEvent<Unread>>(odd).unwrap()
        else {
            panic!("{odd}")
        };
        assert!(unread.read::<Pod>().is_err());
    }
}
