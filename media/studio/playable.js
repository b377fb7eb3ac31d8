/** Whether this browser can play a clip: not every one has H.264, though it knows what an MP4 file is. */

const PROBE = document.createElement("video");
/** Codec of an output -> what RFC 6381 calls its usual profile. */
const CODECS = { h264: "avc1.640028", vp9: "vp09.00.40.08", av1: "av01.0.08M.08" };

/** `output` is a job's, with its content type and codec. */
export function isPlayable({ content_type: kind, codec }) {
  return PROBE.canPlayType(codec in CODECS ? `${kind}; codecs="${CODECS[codec]}"` : kind) !== "";
}
