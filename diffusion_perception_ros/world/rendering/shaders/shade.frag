#version 330
// Light on what was seen: ambient with occlusion, up to four lights (two with soft shadows), highlights, sky.

const int OCCLUSION_TAPS = 10;
const int SHADOW_TAPS = 5;
const float TURN = 6.2831853;
// Rotations from one tap to the next: the golden section of a turn, and the SHADOW_TAPS-th part of one.
const mat2 GOLDEN_TURN = mat2(-0.7373689, -0.6754903, 0.6754903, -0.7373689);
const mat2 SHADOW_TURN = mat2(0.3090170, 0.9510565, -0.9510565, 0.3090170);

uniform sampler2D geometry;
uniform sampler2D surface;
uniform sampler2D materials;
uniform sampler2DShadow shadow0;
uniform sampler2DShadow shadow1;

uniform vec4 camera;  // fx fy cx cy of the sample grid
uniform vec3 up;      // the world's z, in the optical frame
uniform vec3 ambient;
uniform vec3 sky_color;
uniform float clouds;
uniform float seed;
uniform float occlusion_radius;  // metres

uniform int light_count;
uniform vec4 light_position[4];  // optical frame; w = 0: direction towards the light
uniform vec3 light_color[4];
uniform mat4 shadow_from_camera[2];
uniform float shadow_texel[2];
uniform vec3 world_x;  // optical frame, to lay the clouds out
uniform vec3 world_y;

out vec4 radiance;

float hash(vec2 p) {
    vec3 q = fract(vec3(p.xyx) * 0.1031 + seed);
    q += dot(q, q.yzx + 33.33);
    return fract((q.x + q.y) * q.z);
}

float noise(vec2 p) {
    vec2 cell = floor(p), f = fract(p);
    f = f * f * (3.0 - 2.0 * f);
    return mix(mix(hash(cell), hash(cell + vec2(1, 0)), f.x),
               mix(hash(cell + vec2(0, 1)), hash(cell + vec2(1, 1)), f.x), f.y);
}

vec3 ray(vec2 sample_position) {
    return vec3((sample_position - camera.zw) / camera.xy, 1.0);
}

vec2 direction_of(float turn) {
    return vec2(cos(TURN * turn), sin(TURN * turn));
}

#ifdef SKY  // most rooms are closed, and the software rasteriser would compute it for every pixel
vec3 sky(vec3 direction) {
    float height = dot(direction, up);
    vec3 horizon = mix(vec3(dot(sky_color, vec3(0.33))), vec3(1.0), 0.35) * 0.6 + sky_color * 0.4;
    vec3 color = mix(horizon, sky_color, pow(clamp(height, 0.0, 1.0), 0.5));
    if (clouds > 0.0 && height > 0.02) {
        vec2 plane = vec2(dot(direction, world_x), dot(direction, world_y)) / (height + 0.08) * 1.3 + seed * 97.0;
        float density = 0.0, amplitude = 0.5;
        for (int octave = 0; octave < 5; octave++) {
            density += amplitude * noise(plane);
            plane = plane * 2.13 + 17.7;
            amplitude *= 0.5;
        }
        float cover = smoothstep(0.75 - 0.6 * clouds, 1.05 - 0.6 * clouds, density + 0.15);
        vec3 lit = vec3(max(max(sky_color.r, sky_color.g), sky_color.b)) * mix(1.15, 0.6, density * clouds);
        color = mix(color, lit, cover * smoothstep(0.02, 0.2, height));
    }
    for (int i = 0; i < light_count; i++) {
        if (light_position[i].w == 0.0) {
            float toward = max(dot(direction, light_position[i].xyz), 0.0);
            color += light_color[i] * (0.08 * pow(toward, 12.0) + 4.0 * smoothstep(0.9994, 0.9998, toward));
        }
    }
    return color;
}

#endif

float occlusion(vec3 position, vec3 normal, float turn) {
    ivec2 last = textureSize(geometry, 0) - 1;
    float reach = min(occlusion_radius * camera.x / position.z, 0.25 * float(last.x));
    float blocked = 0.0;
    vec2 direction = direction_of(turn);
    for (int i = 0; i < OCCLUSION_TAPS; i++) {
        vec2 offset = reach * (float(i) + 0.5) / float(OCCLUSION_TAPS) * direction;
        direction = GOLDEN_TURN * direction;
        ivec2 tap = clamp(ivec2(gl_FragCoord.xy + offset), ivec2(0), last);
        float depth = texelFetch(geometry, tap, 0).a;
        if (depth <= 0.0) continue;
        vec3 toward = ray(vec2(tap)) * depth - position;
        float distance = length(toward);
        blocked += max(dot(toward, normal) / (distance + 1e-4) - 0.08, 0.0)
            * smoothstep(1.5 * occlusion_radius, 0.3 * occlusion_radius, distance);
    }
    return clamp(1.0 - 2.2 * blocked / float(OCCLUSION_TAPS), 0.0, 1.0);
}

float lit(sampler2DShadow shadow_map, int index, vec3 position, vec3 normal, float turn) {
    vec3 light = light_position[index].xyz - position * light_position[index].w;
    float texel = shadow_texel[index] * (light_position[index].w > 0.0 ? length(light) : 1.0);
    // The surface is lifted off itself by the texels it spans, more so where the light grazes it.
    float grazing = 1.0 - max(dot(normal, normalize(light)), 0.0);
    vec4 clip = shadow_from_camera[index] * vec4(position + normal * texel * (1.0 + 3.0 * grazing), 1.0);
    if (clip.w <= 0.0) return 1.0;
    vec3 place = clip.xyz / clip.w;
    if (max(abs(place.x), abs(place.y)) > 0.99) return 1.0;
    place = place * 0.5 + 0.5;
    float spread = 2.5 / float(textureSize(shadow_map, 0).x);
    float sum = 0.0;
    vec2 direction = direction_of(turn);
    for (int i = 0; i < SHADOW_TAPS; i++) {
        float radius = spread * (0.3 + 0.7 * fract(turn * 7.0 + float(i) * 0.37));
        sum += texture(shadow_map, vec3(place.xy + radius * direction, place.z - 2e-4));
        direction = SHADOW_TURN * direction;
    }
    return sum / float(SHADOW_TAPS);
}

void main() {
    vec2 here = gl_FragCoord.xy - 0.5;
    vec4 seen = texelFetch(geometry, ivec2(here), 0);
    vec3 view = ray(here);
#ifdef SKY
    if (seen.a <= 0.0) {
        radiance = vec4(sky(normalize(view)), 1.0);
        return;
    }
#endif
    vec4 paint = texelFetch(surface, ivec2(here), 0);
    int triangle = int(paint.a) - 1;
    int row_triangles = textureSize(materials, 0).x / 2;
    vec4 finish = texelFetch(materials, ivec2(2 * (triangle % row_triangles) + 1, triangle / row_triangles), 0);
    float emission = finish.r, gloss = finish.g;

    vec3 position = view * seen.a, normal = seen.xyz, toward_eye = -normalize(view);
    float turn = hash(here + 0.5);
    float open = occlusion(position, normal, turn);
    vec3 light = ambient * (0.65 + 0.35 * dot(normal, up)) * open;
    vec3 highlight = vec3(0.0);
    // Outside of the loop: in there, software rasterisers would take all the taps for every light.
    float visible0 = lit(shadow0, 0, position, normal, turn), visible1 = lit(shadow1, 1, position, normal, turn);
    for (int i = 0; i < light_count; i++) {
        vec3 toward = light_position[i].xyz - position * light_position[i].w;
        float squared = dot(toward, toward);
        toward *= inversesqrt(squared);
        float facing = max(dot(normal, toward), 0.0);
        if (facing <= 0.0) continue;
        float falloff = light_position[i].w > 0.0 ? 1.0 / (squared + 0.05) : 1.0;
        float visible = i == 0 ? visible0 : i == 1 ? visible1 : 0.5 + 0.5 * open;
        vec3 arriving = light_color[i] * falloff * visible;
        light += arriving * facing;
        float alignment = max(dot(normal, normalize(toward + toward_eye)), 0.0);
        highlight += arriving * gloss * 0.5 * pow(alignment, mix(10.0, 150.0, gloss)) * facing;
    }
    radiance = vec4(paint.rgb * (light + emission) + highlight, 1.0);
}
