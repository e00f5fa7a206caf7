//! `POST` to a collection.

use crate::core::Ownership;
use crate::reply::Reply;
use crate::status::ApiError;
use crate::verbs::{Request, accept, warning};

pub(crate) async fn create(request: Request) -> Result<Reply, ApiError> {
    let query = request.call.pairs.write()?;
    if request.resource.namespaced && request.namespace.is_empty() {
        return Err(ApiError::method_not_allowed("POST", "all namespaces at once"));
    }
    let intent = request.intent(query);
    let (value, warnings) = accept(&intent, request.object()?)?;
    let (work, namespace) = (intent.clone(), request.namespace.clone());
    let write = request.core.writer.write(move |txn| work.create(txn, &namespace, value, Ownership::Track));
    let written = warning(warnings, write.await)?;
    request.written(&intent, "create", written)
}
