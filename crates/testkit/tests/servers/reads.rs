//! What a server answers that has not heard of the others' writes yet.

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{
    Api, DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, WatchParams,
};
use kube::core::WatchEvent;
use serde_json::json;
use testkit::{Server, Servers};

fn maps(server: &Server) -> Api<ConfigMap> {
    Api::namespaced(server.client.clone(), "default")
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).unwrap()
}

fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_read_without_a_version_shows_what_was_acknowledged_elsewhere() {
    let servers = Servers::start(2).await;
    let [here, behind] = &servers.all[..] else { unreachable!() };
    // What a server does by itself may make a lagging one ask; one that is cut off hears of nothing.
    behind.link.cut(true);
    let made = maps(here).create(&PostParams::default(), &map("a")).await.unwrap();
    let any = GetParams::any();
    assert_eq!(code(maps(behind).get_with("a", &any).await).0, 404, "what is known here will do");
    let list = maps(behind).list(&ListParams::default().match_any()).await.unwrap();
    assert!(list.items.iter().all(|map| map.metadata.name.as_deref() != Some("a")));

    behind.link.lag(true);
    behind.link.cut(false);
    let read = maps(behind).get("a").await.unwrap();
    assert_eq!(read.metadata.resource_version, made.metadata.resource_version);
    maps(here).create(&PostParams::default(), &map("b")).await.unwrap();
    let list = maps(behind).list(&ListParams::default()).await.unwrap();
    assert!(list.items.iter().any(|map| map.metadata.name.as_deref() == Some("b")));
}

#[tokio::test]
async fn writes_meet_the_present_state_and_not_a_remembered_one() {
    let servers = Servers::start(2).await;
    let [here, behind] = &servers.all[..] else { unreachable!() };
    behind.link.lag(true);
    let params = PostParams::default();
    let made = maps(here).create(&params, &map("a")).await.unwrap();
    let mut changed = made.clone();
    changed.data.get_or_insert_default().insert("b".into(), "2".into());
    let changed = maps(behind).replace("a", &params, &changed).await.unwrap();
    assert_eq!(code(maps(here).replace("a", &params, &made).await).0, 409);

    maps(here).create(&params, &map("p")).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"a": "1"}}));
    // Nothing to change there: still it must be known that it is there.
    maps(behind).patch("p", &PatchParams::default(), &patch).await.unwrap();

    let space: Api<Namespace> = Api::all(here.client.clone());
    let name = json!({"metadata": {"name": "shop"}});
    space.create(&params, &serde_json::from_value(name).unwrap()).await.unwrap();
    let shop: Api<ConfigMap> = Api::namespaced(behind.client.clone(), "shop");
    shop.create(&params, &map("a")).await.unwrap();

    maps(here).delete("p", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(maps(behind).patch("p", &PatchParams::default(), &patch).await).0, 404);
    maps(here).create(&params, &map("q")).await.unwrap();
    maps(behind).delete("q", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(maps(here).get("q").await).0, 404);
    assert_eq!(code(maps(behind).create(&params, &map("a")).await).0, 409);
    assert_eq!(maps(here).get("a").await.unwrap().data, changed.data);
}

#[tokio::test]
async fn a_permission_given_at_one_server_holds_at_the_next_request_to_another() {
    let servers = Servers::start(2).await;
    let [here, behind] = &servers.all[..] else { unreachable!() };
    behind.link.lag(true);
    let ann = client::in_process(behind.api.in_process(apiserver::User::new("ann", [])));
    let read: Api<ConfigMap> = Api::namespaced(ann, "default");
    assert_eq!(code(read.list(&ListParams::default()).await).0, 403);
    let binding = json!({"metadata": {"name": "ann"}, "subjects": [
        {"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    let bindings: Api<ClusterRoleBinding> = Api::all(here.client.clone());
    let binding = serde_json::from_value(binding).unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    read.list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_server_without_its_datastore_says_so_and_comes_back_by_itself() {
    let servers = Servers::start(2).await;
    let [here, cut] = &servers.all[..] else { unreachable!() };
    maps(here).create(&PostParams::default(), &map("a")).await.unwrap();
    cut.link.cut(true);
    assert_eq!(
        code(maps(cut).get("a").await),
        (503, "the datastore cannot be reached: ask the datastore for its newest revision: reaching the test's datastore: cut off".into())
    );
    assert_eq!(code(maps(cut).create(&PostParams::default(), &map("b")).await).0, 503);
    maps(cut).get_with("a", &GetParams::any()).await.unwrap();
    cut.link.cut(false);
    maps(cut).create(&PostParams::default(), &map("b")).await.unwrap();
    maps(here).get("b").await.unwrap();
}

#[tokio::test]
async fn a_revision_that_is_yet_to_arrive_is_waited_for() {
    let servers = Servers::start(2).await;
    let [here, behind] = &servers.all[..] else { unreachable!() };
    behind.link.lag(true);
    let first = maps(here).create(&PostParams::default(), &map("a")).await.unwrap();
    let version = first.metadata.resource_version.unwrap();
    let link = behind.link.clone();
    let (params, read) = (GetParams::at(&version), maps(behind));
    let (read, ()) = tokio::join!(read.get_with("a", &params), async {
        tokio::task::yield_now().await;
        link.lag(false);
    });
    read.unwrap();

    behind.link.lag(true);
    let second = maps(here).create(&PostParams::default(), &map("b")).await.unwrap();
    let version = second.metadata.resource_version.unwrap();
    let api = maps(behind);
    let params = WatchParams::default();
    let (stream, ()) = tokio::join!(api.watch(&params, &version), async {
        tokio::task::yield_now().await;
        link.lag(false);
    });
    let mut stream = std::pin::pin!(stream.unwrap());
    maps(here).create(&PostParams::default(), &map("c")).await.unwrap();
    match stream.try_next().await.unwrap() {
        Some(WatchEvent::Added(map)) => assert_eq!(map.metadata.name.as_deref(), Some("c")),
        other => panic!("{other:?}"),
    }

    let (late, message) = code(maps(behind).get_with("a", &GetParams::at("99999")).await);
    assert!(
        late == 504 && message.contains("Too large resource version: 99999, current:"),
        "{message}"
    );
}

/// A page may be asked of another server than the one before it.
#[tokio::test]
async fn a_list_goes_on_at_another_server() {
    let servers = Servers::start(2).await;
    let [here, behind] = &servers.all[..] else { unreachable!() };
    behind.link.lag(true);
    for name in ["p1", "p2", "p3"] {
        maps(here).create(&PostParams::default(), &map(name)).await.unwrap();
    }
    let page = maps(here).list(&ListParams::default().limit(1)).await.unwrap();
    let token = page.metadata.continue_.unwrap();
    let link = behind.link.clone();
    let (rest, api) = (ListParams::default().limit(100).continue_token(&token), maps(behind));
    let (rest, ()) = tokio::join!(api.list(&rest), async {
        tokio::task::yield_now().await;
        link.lag(false);
    });
    let rest = rest.unwrap();
    assert_eq!(rest.metadata.resource_version, page.metadata.resource_version);
    assert!(rest.items.iter().any(|map| map.metadata.name.as_deref() == Some("p3")));
}
