-- Previews of reports for wrk. Arguments: 1 token, 2 path of the body.
function init(args)
  local file = assert(io.open(args[2], "rb"))
  local body = file:read("*a")
  file:close()
  local headers = { ["Authorization"] = "Bearer " .. args[1], ["Content-Type"] = "application/json" }
  asked = wrk.format("POST", "/reporttemplates/v1/preview?format=pdf", headers, body)
end

function request()
  return asked
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('RESULT {"requests":%d,"seconds":%.3f,"errors":%d,"p50":%.2f}\n', summary.requests,
    summary.duration / 1e6, errors.status + errors.read + errors.write + errors.connect, latency:percentile(50) / 1000))
end
