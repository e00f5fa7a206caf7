//! [`Page`]: the routes, and who is answered.
//!
//! Who may see the page is decided by who can reach it, so it is meant for loopback. A web site that a person visits must not
//! reach it through that person's browser: requests must name the host by address or as localhost (a name may be made to
//! point anywhere), and no other origin may read or frame what is served.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::board::Board;
use crate::stream::events;

/// How many may read at once; a browser's tab is one.
const READERS_AT_MOST: usize = 32;

/// What the page may do: nothing but load its own files and hear its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page, with a place in the network.
#[derive(Debug)]
pub struct Page {
    listener: TcpListener,
    board: Board,
}

impl Page {
    /// Takes the address, for what the board shows.
    ///
    /// # Errors
    /// Where the address can't be had.
    pub async fn bind(address: SocketAddr, board: Board) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, board })
    }

    /// The address that it has.
    ///
    /// # Errors
    /// Where the system doesn't tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// Where the system takes the address away.
    pub async fn serve(self) -> std::io::Result<()> {
        axum::serve(self.listener, routes(self.board)).await
    }
}

#[derive(Clone)]
struct Shared {
    board: Board,
    readers: Arc<Semaphore>,
}

fn routes(board: Board) -> Router {
    let asset = |type_: &'static str, text: &'static str| {
        get(
            move || async move { ([(header::CONTENT_TYPE, type_), (header::CACHE_CONTROL, "no-cache")], text) },
        )
    };
    Router::new()
        .route("/", asset("text/html; charset=utf-8", include_str!("../assets/index.html")))
        .route("/style.css", asset("text/css; charset=utf-8", include_str!("../assets/style.css")))
        .route("/page.js", asset("text/javascript; charset=utf-8", include_str!("../assets/page.js")))
        .route("/events", get(stream))
        .with_state(Shared { board, readers: Arc::new(Semaphore::new(READERS_AT_MOST)) })
        .layer(from_fn(guard))
}

async fn stream(State(shared): State<Shared>) -> Response {
    let Ok(permit) = shared.readers.try_acquire_owned() else {
        let message = format!("{READERS_AT_MOST} readers have the page open: try again later");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], message).into_response();
    };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events(shared.board, permit))).into_response()
}

/// Refuses who calls this host by another name, and says what may be done with the answer.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = if is_called_rightly(request.headers()) {
        next.run(request).await
    } else {
        let message = "ask for it by the address of the host, or as localhost";
        (StatusCode::MISDIRECTED_REQUEST, message).into_response()
    };
    let said: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in said {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether `Host` is an address or localhost, with a port or without: no name that somebody else may resolve.
fn is_called_rightly(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(address) => address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4())
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    fn request(method: Method, path: &str, host: &str) -> Request {
        Request::builder().method(method).uri(path).header(header::HOST, host).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn the_page_and_its_files_are_there_to_be_read_and_for_nothing_else() {
        let app = routes(Board::default());
        for path in ["/", "/style.css", "/page.js", "/events"] {
            let response = app.clone().oneshot(request(Method::GET, path, "localhost:9404")).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            let head = app.clone().oneshot(request(Method::HEAD, path, "127.0.0.1")).await.unwrap();
            assert_eq!(head.status(), StatusCode::OK, "{path}");
            assert_eq!(head.headers()[header::CONTENT_TYPE], response.headers()[header::CONTENT_TYPE]);
            assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
                let response = app.clone().oneshot(request(method, path, "localhost")).await.unwrap();
                assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
            }
        }
        let response = app.oneshot(request(Method::GET, "/elsewhere", "localhost")).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn every_answer_says_what_may_be_done_with_it() {
        let app = routes(Board::default());
        let asked = [
            ("/", "localhost"),
            ("/events", "[::1]:9404"),
            ("/elsewhere", "10.0.0.1"),
            ("/", "evil.example"),
        ];
        for (path, host) in asked {
            let response = app.clone().oneshot(request(Method::GET, path, host)).await.unwrap();
            let headers = response.headers();
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
    }

    #[tokio::test]
    async fn who_calls_the_host_by_a_strange_name_is_refused() {
        let app = routes(Board::default());
        let names = [
            "evil.example",
            "evil.example:9404",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "[",
            "[::1",
            "::1",
        ];
        for host in names {
            for path in ["/", "/events"] {
                let response = app.clone().oneshot(request(Method::GET, path, host)).await.unwrap();
                assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST, "{host}");
            }
        }
        let mut twice = request(Method::GET, "/", "localhost");
        twice.headers_mut().append(header::HOST, HeaderValue::from_static("evil.example"));
        let response = app.clone().oneshot(twice).await.unwrap();
        assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
        let none = Request::builder().uri("/").body(Body::empty()).unwrap();
        assert_eq!(app.oneshot(none).await.unwrap().status(), StatusCode::MISDIRECTED_REQUEST);
    }

    #[tokio::test]
    async fn so_many_may_read_at_once_and_one_that_leaves_makes_room() {
        let app = routes(Board::default());
        let open =
            || async { app.clone().oneshot(request(Method::GET, "/events", "localhost")).await.unwrap() };
        let mut streams = Vec::new();
        for _ in 0..READERS_AT_MOST {
            streams.push(open().await);
        }
        assert!(streams.iter().all(|response| response.status() == StatusCode::OK));
        assert_eq!(open().await.status(), StatusCode::SERVICE_UNAVAILABLE);
        streams.pop();
        assert_eq!(open().await.status(), StatusCode::OK);
    }

    #[test]
    fn the_page_has_no_script_or_style_of_its_own_and_names_no_other_host() {
        let page = include_str!("../assets/index.html");
        let script = include_str!("../assets/page.js");
        for text in ["style=", "onclick", "<style", "javascript:", "//"] {
            assert!(!page.contains(text), "{text}");
        }
        // What comes from objects is put in as text alone.
        for way in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"]
        {
            assert!(!script.contains(way), "{way}");
        }
    }
}
