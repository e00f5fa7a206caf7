-- How Argo CD judges a VirtnetDevice, a VirtnetDeviceSet and a Dpu: by the rules of kstatus, to which their statuses keep
-- (https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md). It is given one object as `obj`.

if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = "Being deleted"}
end
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "What is declared now has not been looked at yet"}
end

local found = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  found[condition.type] = condition
end

local function says(name, status)
  return found[name] ~= nil and found[name].status == status
end

local function health(status, name)
  return {status = status, message = found[name].reason .. ": " .. (found[name].message or "")}
end

if says("Stalled", "True") then
  return health("Degraded", "Stalled")
end
if says("Reconciling", "True") then
  return health("Progressing", "Reconciling")
end
if says("Ready", "True") then
  return health("Healthy", "Ready")
end
if found.Ready ~= nil then
  return health("Progressing", "Ready")
end
return {status = "Progressing", message = "Nothing has been said of it yet"}
