//! `GET` of one object.

use crate::reply::Reply;
use crate::status::ApiError;
use crate::store::Key;
use crate::verbs::Request;

pub(crate) fn get(request: &Request, key: &Key) -> Result<Reply, ApiError> {
    let query = request.call.pairs.list()?;
    let (found, current) =
        request.core.store.read(|state| (state.get(key).map(std::sync::Arc::clone), state.revision()));
    if let Some(wanted) = query.resource_version.filter(|wanted| *wanted > current) {
        return Err(ApiError::version_too_large(wanted, current));
    }
    let found = found.ok_or_else(|| ApiError::not_found(&request.resource, &key.name))?;
    Ok(Reply::ok(request.present(found.value.clone())?))
}
