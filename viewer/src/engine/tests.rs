use super::*;
use crate::cache::CACHE_BYTES;
use pprof::{Builder, Labels, Line, Meta};

const CLIENT: ConnectionId = ConnectionId(1);

fn at(second: u64) -> Moment {
    Moment {
        monotonic: Duration::from_secs(second),
        unix: Duration::from_secs(1_795_524_300 + second),
    }
}

fn id(second: u64) -> WindowId {
    WindowId::from_start(at(second).unix)
}

/// A window's file: one stack of a program, seen so often.
fn file(second: u64, comm: &str, count: u64) -> Vec<u8> {
    let mut builder = Builder::new(Meta {
        time_nanos: i64::try_from(at(second).unix.as_nanos()).expect("this century"),
        duration_nanos: 10_000_000_000,
        frequency: 19,
    });
    let function = builder.function("main", "main", "");
    let main = builder.location(None, 0x10, &[Line { function, line: 0 }]);
    let labels = Labels {
        pid: Some(7),
        comm,
        ..Labels::default()
    };
    builder.sample(&[main], &labels, count);
    pprof::write_gzip(&builder.finish())
}

fn engine() -> Engine {
    let address = "127.0.0.1:7071".parse().expect("an address");
    Engine::new(AllowedHosts::new(address), CACHE_BYTES)
}

fn request(target: &str) -> Request {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Request {
        head_only: false,
        path: path.into(),
        query: query.into(),
        host: Some("localhost:7071".into()),
        keep_alive: true,
        accepts_gzip: false,
        accept: None,
    }
}

/// What a browser of a store sees: carries out reads from `files` until nothing is left to do.
fn run(
    engine: &mut Engine,
    actions: Vec<Action>,
    files: &[(WindowId, Vec<u8>)],
    now: Moment,
) -> (Vec<Response>, usize) {
    let mut responses = Vec::new();
    let mut reads = 0;
    let mut left = VecDeque::from(actions);
    while let Some(action) = left.pop_front() {
        match action {
            Action::Respond(_, response) => responses.push(response),
            Action::Read(id) => {
                reads += 1;
                let read = files
                    .iter()
                    .find(|(stored, _)| *stored == id)
                    .map(|(_, bytes)| bytes.clone())
                    .ok_or_else(|| "gone".to_owned());
                left.extend(engine.on_window_read(id, read, now));
            }
        }
    }
    (responses, reads)
}

fn ask(engine: &mut Engine, target: &str, files: &[(WindowId, Vec<u8>)]) -> (Response, usize) {
    let actions = engine.on_request(CLIENT, &request(target), at(60));
    let (mut responses, reads) = run(engine, actions, files, at(60));
    assert_eq!(responses.len(), 1, "{target}");
    (responses.remove(0), reads)
}

fn text(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

fn list(engine: &mut Engine, files: &[(WindowId, Vec<u8>)], now: Moment) -> Vec<Response> {
    let present = files
        .iter()
        .map(|(id, bytes)| (*id, bytes.len() as u64))
        .collect();
    let actions = engine.on_store_listed(present);
    run(engine, actions, files, now).0
}

#[test]
fn windows_are_read_once_and_kept() {
    let files = [(id(0), file(0, "app", 3)), (id(10), file(10, "db", 4))];
    let mut engine = engine();
    list(&mut engine, &files, at(20));
    let (response, reads) = ask(&mut engine, "/flamegraph?window=last:2", &files);
    assert_eq!((response.status, reads), (Status::Ok, 2));
    let answer = text(&response);
    assert!(
        answer.contains(r#""total":7"#) && answer.contains(r#"["app",1,"",""]"#),
        "{answer}"
    );
    let (response, reads) = ask(
        &mut engine,
        "/flamegraph?window=last:1&process=comm:db",
        &files,
    );
    assert_eq!(reads, 0, "in memory");
    assert!(text(&response).contains(r#""total":4"#));
    let (response, reads) = ask(&mut engine, "/processes?window=last:2", &files);
    assert_eq!(reads, 0);
    assert!(
        text(&response).contains(r#""comm":"db","samples":4"#),
        "{}",
        text(&response)
    );
    let (response, reads) = ask(&mut engine, "/windows", &files);
    assert_eq!(reads, 0, "their summaries are known");
    assert!(text(&response).contains(r#""samples":3"#));
}

#[test]
fn a_window_asked_for_twice_at_once_is_read_once() {
    let files = [(id(0), file(0, "app", 3))];
    let mut engine = engine();
    list(&mut engine, &files, at(10));
    let mut actions = engine.on_request(ConnectionId(1), &request("/flamegraph"), at(10));
    actions.extend(engine.on_request(ConnectionId(2), &request("/processes"), at(10)));
    let (responses, reads) = run(&mut engine, actions, &files, at(10));
    assert_eq!((responses.len(), reads), (2, 1));
}

#[test]
fn a_window_that_cannot_be_read_is_left_out_and_counted() {
    let good = (id(10), file(10, "db", 4));
    let files = [(id(0), b"no profile".to_vec()), good.clone()];
    let mut engine = engine();
    list(&mut engine, &files, at(20));
    let (response, reads) = ask(&mut engine, "/flamegraph?window=last:2", &files);
    assert_eq!(reads, 2);
    let answer = text(&response);
    assert!(
        answer.contains(r#""unreadable":1"#) && answer.contains(r#""total":4"#),
        "{answer}"
    );
    assert_eq!(
        ask(&mut engine, "/flamegraph?window=last:2", &files).1,
        0,
        "not tried again"
    );
    assert_eq!(engine.counters.unreadable_windows, 1);
    assert!(text(&ask(&mut engine, "/windows", &files).0).contains(r#""summary":null"#));
    list(&mut engine, &[good], at(30));
    assert!(
        !engine.summaries.contains_key(&id(0)),
        "forgotten with its file"
    );
}

#[test]
fn a_download_is_the_file_itself_or_what_is_selected_of_it() {
    let files = [(id(0), file(0, "app", 3)), (id(10), file(10, "db", 4))];
    let mut engine = engine();
    list(&mut engine, &files, at(20));
    let (response, _) = ask(&mut engine, &format!("/download?window={}", id(0)), &files);
    assert_eq!(response.body, files[0].1);
    let (response, _) = ask(
        &mut engine,
        "/download?window=last:2&process=comm:db",
        &files,
    );
    let profile = pprof::read(&response.body).expect("a profile");
    assert_eq!(profile.sample.len(), 1);
    let (response, _) = ask(&mut engine, "/download?process=comm:other", &files);
    assert_eq!(response.status, Status::NotFound);
    let (response, _) = ask(&mut engine, "/download?window=20200101T000000.000Z", &files);
    assert_eq!(response.status, Status::NotFound);
}

#[test]
fn query_takes_the_next_window_that_matches() {
    let mut files = vec![(id(0), file(0, "app", 3))];
    let mut engine = engine();
    list(&mut engine, &files, at(10));
    let wanted = request("/query?query={comm=\"app\"}");
    let actions = engine.on_request(CLIENT, &wanted, at(10));
    assert!(
        actions.is_empty(),
        "the window that is there already isn't the next one"
    );
    assert!(engine.awaits_window());
    files.push((id(10), file(10, "db", 4)));
    assert!(
        list(&mut engine, &files, at(12)).is_empty(),
        "no sample of app"
    );
    files.push((id(20), file(20, "app", 5)));
    let responses = list(&mut engine, &files, at(18));
    assert_eq!(responses.len(), 1);
    assert_eq!(
        pprof::read(&responses[0].body).expect("a profile").sample[0].value,
        [5]
    );
    assert!(!engine.awaits_window());
}

#[test]
fn query_gives_up_after_a_window_and_a_second() {
    let mut files = vec![(id(0), file(0, "app", 3))];
    let mut engine = engine();
    list(&mut engine, &files, at(10));
    engine.on_request(CLIENT, &request("/query?query={comm=\"other\"}"), at(10));
    files.push((id(10), file(10, "db", 4)));
    assert!(list(&mut engine, &files, at(15)).is_empty());
    assert_eq!(engine.deadline(), Some(Duration::from_secs(21)));
    assert!(engine.on_time(at(20)).is_empty());
    let actions = engine.on_time(at(21));
    let (responses, _) = run(&mut engine, actions, &files, at(21));
    assert_eq!(responses[0].status, Status::NotFound);
    assert!(text(&responses[0]).contains("other"));
}

#[test]
fn query_waits_longer_while_no_window_comes_at_all() {
    let mut engine = engine();
    engine.on_request(CLIENT, &request("/query?query={}"), at(0));
    assert!(engine.on_time(at(12)).is_empty());
    let actions = engine.on_time(at(21));
    let (responses, _) = run(&mut engine, actions, &[], at(21));
    assert_eq!(responses[0].status, Status::NotFound);
    assert!(text(&responses[0]).contains("/ready"));
}

#[test]
fn query_as_a_page_is_text() {
    let mut engine = engine();
    engine.on_request(
        CLIENT,
        &request("/query?query={comm=~\"ap.\"}&debug=1"),
        at(0),
    );
    let responses = list(&mut engine, &[(id(0), file(0, "app", 3))], at(9));
    let page = text(&responses[0]);
    assert!(
        page.contains("<pre>") && page.contains("main") && page.contains("Download"),
        "{page}"
    );
}

#[test]
fn a_client_that_left_is_forgotten() {
    let mut engine = engine();
    engine.on_request(CLIENT, &request("/query?query={}"), at(0));
    engine.on_disconnected(CLIENT);
    assert!(!engine.awaits_window());
    assert!(list(&mut engine, &[(id(0), file(0, "app", 3))], at(9)).is_empty());
}

#[test]
fn waiting_requests_are_bounded() {
    let mut engine = engine();
    for client in 0..MAX_JOBS as u64 {
        assert!(
            engine
                .on_request(ConnectionId(client), &request("/query?query={}"), at(0))
                .is_empty()
        );
    }
    let (response, _) = ask(&mut engine, "/query?query={}", &[]);
    assert_eq!(response.status, Status::ServiceUnavailable);
}

#[test]
fn strange_hosts_and_bad_requests_are_refused() {
    let mut engine = engine();
    let mut stranger = request("/metrics");
    stranger.host = Some("evil.example".into());
    let mut answer = |request: &Request| {
        let actions = engine.on_request(CLIENT, request, at(0));
        run(&mut engine, actions, &[], at(0)).0.remove(0).status
    };
    assert_eq!(answer(&stranger), Status::Forbidden);
    stranger.host = None;
    assert_eq!(answer(&stranger), Status::BadRequest);
    assert_eq!(answer(&request("/nothing")), Status::NotFound);
    assert_eq!(answer(&request("/query")), Status::BadRequest);
    assert_eq!(answer(&request("/flamegraph?window=x")), Status::BadRequest);
    assert_eq!(answer(&request("/healthy")), Status::Ok);
    assert_eq!(answer(&request("/ready")), Status::ServiceUnavailable);
    assert_eq!(engine.counters.refused_hosts, 1);
}

#[test]
fn ready_and_metrics_follow_the_reports() {
    let mut engine = engine();
    let files = [(id(50), file(50, "app", 3))];
    list(&mut engine, &files, at(60));
    let attached = vec![Metric::gauge("leadsman_sampler_attached", "Attached.", 1.0)];
    engine.on_statistics(Role::Sampler, attached, at(60));
    assert_eq!(ask(&mut engine, "/ready", &files).0.status, Status::Ok);
    let metrics = text(&ask(&mut engine, "/metrics", &files).0);
    for line in [
        "leadsman_ready{process=\"viewer\"} 1\n",
        "leadsman_sampler_attached{process=\"sampler\"} 1\n",
        "leadsman_store_windows{process=\"viewer\"} 1\n",
        "leadsman_viewer_responses_total{process=\"viewer\",code=\"200\"} ",
        "leadsman_build_info{process=\"viewer\",version=",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let status = text(&ask(&mut engine, "/status", &files).0);
    assert!(status.contains(r#""ready":true"#), "{status}");
}
